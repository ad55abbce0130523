from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import meshio
import numpy as np
import pytest

from nhgd_pde.output.atomic import OutputError, atomic_path, target_of_temporary, write_atomically
from nhgd_pde.output.fields import NODES_PER_CELL, FieldData, FieldSeries, Grid, read_vtu, write_vtu

ROOT = Path(__file__).parents[1]
DIMENSION = {"line": 1, "line3": 1, "triangle": 2, "triangle6": 2, "quad": 2, "quad9": 2, "tetra": 3, "tetra10": 3}
TRIANGLES = Grid(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]]), "triangle")


def two_cells(cell_type: str) -> Grid:
    nodes = NODES_PER_CELL[cell_type]
    points = np.random.default_rng(1).random((nodes + 2, DIMENSION.get(cell_type, 3)))
    return Grid(points, np.array([np.arange(nodes), np.arange(nodes) + 2]), cell_type)


def indexed_files(index: Path) -> list[tuple[float, Path]]:
    root = ElementTree.parse(index).getroot()
    assert (root.tag, root.attrib["type"]) == ("VTKFile", "Collection")
    entries = root.findall("Collection/DataSet")
    return [(float(entry.attrib["timestep"]), index.parent / entry.attrib["file"]) for entry in entries]


@pytest.mark.parametrize("cell_type", sorted(NODES_PER_CELL))
def test_every_cell_type_is_read_back_by_meshio(tmp_path: Path, cell_type: str) -> None:
    grid = two_cells(cell_type)
    count, dim = grid.points.shape
    u, kappa = np.linspace(-1, 1, count), np.array([1e-300, 7.25])
    write_vtu(tmp_path / "a.vtu", grid, FieldData({"u": u}, {"kappa": kappa}))

    mesh = meshio.read(tmp_path / "a.vtu")
    assert [block.type for block in mesh.cells] == [cell_type]
    assert np.array_equal(mesh.cells[0].data, grid.cells)
    assert np.array_equal(mesh.points, np.pad(grid.points, ((0, 0), (0, 3 - dim))))
    assert mesh.point_data.keys() == {"u"}
    assert mesh.cell_data.keys() == {"kappa"}
    assert np.array_equal(mesh.point_data["u"], u)
    assert np.array_equal(mesh.cell_data["kappa"][0], kappa)


def test_only_small_files_are_compressed_and_point_numbers_take_four_bytes(tmp_path: Path) -> None:
    sizes = {}
    for n in (16, 450):
        x, y = np.meshgrid(np.linspace(0.0, 1.0, n + 1), np.linspace(0.0, 1.0, n + 1))
        corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).reshape(-1)
        cells = np.stack([corner, corner + 1, corner + n + 2, corner + n + 1], axis=1)
        grid = Grid(np.stack([x.reshape(-1), y.reshape(-1)], axis=1), cells, "quad")
        values = np.sin(3.0 * grid.points[:, 0])
        write_vtu(tmp_path / "a.vtu", grid, FieldData({"u": values}))
        with open(tmp_path / "a.vtu", "rb") as file:
            head = file.read(300)
        assert (b"vtkZLibDataCompressor" in head) == (n == 16)
        found, fields = read_vtu(tmp_path / "a.vtu")
        assert np.array_equal(found.cells, cells) and np.array_equal(fields.point["u"], values)
        assert np.array_equal(found.points[:, :2], grid.points)
        sizes[n] = (tmp_path / "a.vtu").stat().st_size
    # Coordinates and values take 8 bytes each, four point numbers, the end and the type of a cell 4, 4 and 8 or fewer;
    # base64 takes four thirds of that.
    assert sizes[450] <= 4.0 / 3.0 * (451**2 * 32 + 450**2 * 28) + 4000


@pytest.mark.parametrize("compression", ["zlib", "lzma", None])
def test_values_of_all_types_are_read_back(tmp_path: Path, compression: str | None) -> None:
    rng = np.random.default_rng(2)
    wave = rng.random((4, 2)) + 1j * rng.random((4, 2))
    stress = rng.random((2, 2, 2))
    point = {
        "vector": rng.random((4, 2)),
        "scenarios": rng.random((4, 5)),
        "mask": np.array([True, False, True, True]),
        "wave": wave,
        "strided": rng.random((2, 8))[0, ::2],
        "columns": np.asfortranarray(rng.random((4, 3))),
        "big endian": np.arange(4, dtype=">f8"),
        "half": np.array([0.5, 1, 2, np.nan], dtype=np.float16),
        "count": np.array([1, 2, 3, 2**40]),
    }
    fields = FieldData(point, {"stress": stress, "material": np.array([3, 1], dtype=np.int8)}, time=0.1)
    write_vtu(tmp_path / "a.vtu", TRIANGLES, fields, compression=compression)  # type: ignore[arg-type]

    grid, found = read_vtu(tmp_path / "a.vtu")
    assert grid.cell_type == "triangle"
    assert found.time == 0.1
    assert found.point.keys() == (point.keys() - {"wave"}) | {"wave_real", "wave_imag"}
    assert np.array_equal(found.point["vector"], np.pad(point["vector"], ((0, 0), (0, 1))))
    assert np.array_equal(found.point["wave_real"][:, :2], wave.real)
    assert np.array_equal(found.point["wave_imag"][:, :2], wave.imag)
    assert found.point["mask"].dtype == np.uint8
    for name in ("scenarios", "mask", "strided", "columns", "big endian", "count"):
        assert np.array_equal(found.point[name], point[name]), name
    assert np.array_equal(found.point["half"], point["half"].astype(float), equal_nan=True)
    assert np.array_equal(found.cell["stress"].reshape(2, 3, 3)[:, :2, :2], stress)
    assert np.array_equal(found.cell["material"], [3, 1])


def test_names_with_xml_characters_and_accents_are_read_back(tmp_path: Path) -> None:
    names = ['|grad "u"|', "a < b & c", "température", "Φ"]
    write_vtu(tmp_path / "a.vtu", TRIANGLES, FieldData({name: np.arange(4.0) for name in names}))
    assert list(read_vtu(tmp_path / "a.vtu")[1].point) == names


def test_the_given_fields_are_not_changed(tmp_path: Path) -> None:
    point, cell = {"z": np.array([1j, 2, 3, 4])}, {"k": np.array([True, False])}
    before = point["z"].copy()
    write_vtu(tmp_path / "a.vtu", TRIANGLES, FieldData(point, cell))
    assert list(point) == ["z"]
    assert np.array_equal(point["z"], before)
    assert cell["k"].dtype == bool


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (FieldData({"u": np.zeros(7)}), r"point field 'u': expected length 4 .*found length 7"),
        (FieldData({}, {"k": np.zeros(4)}), r"cell field 'k': expected length 2 .*found length 4"),
        (FieldData({"u": np.array(1.0)}), r"'u': expected length 4 .*found one number"),
        (FieldData({"u": np.array(list("abcd"))}), r"'u': expected real.*found <U1"),
        (FieldData({"u": np.zeros((4, 2, 3))}), r"'u': expected shape .*found \(4, 2, 3\)"),
        (FieldData({"": np.zeros(4)}), r"field '': expected a name"),
        (FieldData({"a\nb": np.zeros(4)}), r"expected a name of printable"),
        (FieldData({"u_real": np.zeros(4), "u": np.zeros(4, complex)}), r"'u_real' is taken"),
        (FieldData({}, {}, time=float("nan")), r"time: expected a finite number, found nan"),
    ],
)
def test_bad_fields_are_refused_and_leave_no_file(tmp_path: Path, fields: FieldData, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        write_vtu(tmp_path / "a.vtu", TRIANGLES, fields)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("points", "cells", "cell_type", "message"),
    [
        (np.zeros((3, 4)), np.array([[0, 1, 2]]), "triangle", r"points.*found \(3, 4\)"),
        (np.zeros((3, 2)), np.array([[0, 1]]), "triangle", r"cells: expected shape \(M, 3\).*\(1, 2\)"),
        (np.zeros((3, 2)), np.array([[0, 1, 3]]), "triangle", r"point numbers 0 to 2, found 0 to 3"),
        (np.zeros((3, 2)), np.array([[0.0, 1, 2]]), "triangle", r"integers, found float64"),
        (np.zeros((3, 2)), np.zeros((0, 3), int), "triangle", r"found \(0, 3\)"),
        (np.zeros((3, 2)), np.array([[0, 1, 2]]), "tri", r"cell_type: expected one of .*found 'tri'"),
    ],
)
def test_bad_grids_are_refused(points: np.ndarray, cells: np.ndarray, cell_type: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        Grid(points, cells, cell_type)


def test_unreadable_files_raise_and_print_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_vtu(tmp_path / "whole.vtu", TRIANGLES, FieldData({"u": np.arange(4.0)}))
    whole = (tmp_path / "whole.vtu").read_bytes()
    bad = tmp_path / "bad.vtu"
    for content in (b"", b"no XML", whole[: len(whole) // 2], b"<VTKFile type='Collection'/>"):
        bad.write_bytes(content)
        with pytest.raises(OutputError, match=r"bad\.vtu: not a readable VTU file"):
            read_vtu(bad)
    with pytest.raises(OutputError, match="no such file"):
        read_vtu(tmp_path / "none.vtu")
    assert capsys.readouterr() == ("", "")


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_atomically(target, "old\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "new \ud800")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half way")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "old\n"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
    write_atomically(target, b"\x00new\r\n")
    assert target.read_bytes() == b"\x00new\r\n"


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from nhgd_pde.output.atomic import write_atomically
from nhgd_pde.output.fields import FieldData, Grid, write_vtu
grid = Grid(np.arange(20_000.0)[:, None], np.array([[0, 1]]), "line")
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
failed = 0
for write in (
    lambda: write_atomically(sys.argv[1] + "/a.txt", "new" * 20_000),
    lambda: write_vtu(sys.argv[1] + "/a.vtu", grid, FieldData()),
):
    try:
        write()
    except OSError:
        failed += 1
sys.exit(failed)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits")
def test_a_write_that_runs_out_of_room_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.txt", "old")
    write_atomically(tmp_path / "a.vtu", "old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == 2, "both writes must fail"
    assert {item.name: item.read_text() for item in tmp_path.iterdir()} == {"a.txt": "old", "a.vtu": "old"}


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "a", "text")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_temporary_files_are_recognised_by_their_name(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.vtu") as temporary:
        assert target_of_temporary(temporary.name) == "a.vtu"
        temporary.touch()
    for name in ("a.vtu", ".a.vtu.tmp", "a.vtu.0123456789ab.tmp", ".bashrc"):
        assert target_of_temporary(name) is None


def test_series_index_names_the_files_with_their_times(tmp_path: Path) -> None:
    series = FieldSeries(tmp_path / "fields")
    for index, moment in ((10, 0.1), (0, 0.0), (123456, 0.3), (10, 0.2)):
        path = series.add(index, moment, TRIANGLES, FieldData({"u": np.full(4, moment)}, {}, time=99.0))
        assert path == series.file_path(index)
    entries = indexed_files(tmp_path / "fields" / "state.pvd")
    assert [(moment, path.name) for moment, path in entries] == [
        (0.0, "state_00000.vtu"),
        (0.2, "state_00010.vtu"),
        (0.3, "state_123456.vtu"),
    ]
    for moment, path in entries:
        fields = read_vtu(path)[1]
        assert fields.time == moment
        assert np.array_equal(fields.point["u"], np.full(4, moment))


def test_a_refused_entry_does_not_change_the_index(tmp_path: Path) -> None:
    series = FieldSeries(tmp_path, "control")
    series.add(0, 0, TRIANGLES, FieldData())
    before = (tmp_path / "control.pvd").read_bytes()
    for index, moment, fields in ((1, 1.0, FieldData({"u": np.zeros(3)})), (-1, 1.0, FieldData())):
        with pytest.raises(OutputError):
            series.add(index, moment, TRIANGLES, fields)
    with pytest.raises(OutputError, match="time"):
        series.add(1, float("inf"), TRIANGLES, FieldData())
    series.add(2, 2.0, TRIANGLES, FieldData())
    assert before.count(b"<DataSet") == 1
    assert [path.name for _, path in indexed_files(tmp_path / "control.pvd")] == [
        "control_00000.vtu",
        "control_00002.vtu",
    ]
    with pytest.raises(OutputError, match=r"stem.*'\.\./x'"):
        FieldSeries(tmp_path, "../x")


def test_resume_keeps_the_entries_that_are_still_valid(tmp_path: Path) -> None:
    series = FieldSeries(tmp_path)
    for index in range(5):
        series.add(index, index / 10, TRIANGLES, FieldData())
    series.file_path(1).unlink()
    resumed = FieldSeries.resume(tmp_path, up_to=3)
    assert resumed.times == {0: 0.0, 2: 0.2, 3: 0.3}
    resumed.add(7, 0.7, TRIANGLES, FieldData())
    assert [moment for moment, _ in indexed_files(tmp_path / "state.pvd")] == [0.0, 0.2, 0.3, 0.7]
    assert FieldSeries.resume(tmp_path / "none").times == {}


@pytest.mark.parametrize("content", ["", "<VTKFile", "<a><Collection><DataSet/></Collection></a>"])
def test_resume_refuses_a_damaged_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.pvd").write_text(content)
    with pytest.raises(OutputError, match=r"state\.pvd: not a readable ParaView index"):
        FieldSeries.resume(tmp_path)


def test_resume_refuses_files_outside_the_series(tmp_path: Path) -> None:
    (tmp_path / "state.pvd").write_text(
        '<VTKFile><Collection><DataSet timestep="0" file="../state_00001.vtu"/></Collection></VTKFile>'
    )
    with pytest.raises(OutputError, match=r"expected files state_<number>\.vtu, found '\.\./state_00001\.vtu'"):
        FieldSeries.resume(tmp_path)


WRITER = """
import sys
import numpy as np
from nhgd_pde.output.fields import FieldData, FieldSeries, Grid
n = 60
x, y = np.meshgrid(np.arange(n), np.arange(n))
corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
cells = np.stack([corner, corner + 1, corner + n + 1, corner + n], axis=1)
grid = Grid(np.stack([x.ravel(), y.ravel()], axis=1), cells, "quad")
series = FieldSeries(sys.argv[1])
for step in range(100_000):
    series.add(step % 8, step, grid, FieldData({"u": np.full(n * n, step)}))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_during_a_run_and_after_a_kill_the_index_names_complete_files_only(tmp_path: Path) -> None:
    delays = np.random.default_rng().uniform(0.0, 0.3, 4)
    for run, delay in enumerate(delays):
        folder = tmp_path / str(run)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], cwd=ROOT)
        index = folder / "state.pvd"
        give_up = time.monotonic() + 60
        while not index.exists() and time.monotonic() < give_up:
            assert writer.poll() is None, "the writer ended by itself"
            time.sleep(0.01)
        end = time.monotonic() + delay
        while time.monotonic() < end:
            assert indexed_files(index)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL

        entries = indexed_files(index)
        assert entries, delay
        for moment, path in entries:
            grid, fields = read_vtu(path)
            assert len(grid.cells) == 59**2, delay
            assert np.array_equal(fields.point["u"], np.full(60**2, fields.time)), delay
            # The process may be killed after a file has replaced one of eight steps before, and before the index is
            # written.
            assert fields.time - moment in (0, 8), delay
        assert list(FieldSeries.resume(folder).times) == list(range(len(entries)))


def test_meshio_is_imported_only_when_a_file_is_written() -> None:
    code = (
        "import sys, nhgd_pde.output.run_folder, nhgd_pde.output.progress;"
        "sys.exit(', '.join({'meshio', 'rich', 'torch'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_vtk_opens_the_index(tmp_path: Path) -> None:
    pyvista = pytest.importorskip("pyvista")
    series = FieldSeries(tmp_path)
    for index, moment in enumerate((0.0, 0.25, 1.5)):
        fields = FieldData({"u": np.full(4, moment), "v": np.full((4, 2), moment)}, {"k": np.array([1.0, 2])})
        series.add(index, moment, TRIANGLES, fields)
    reader = pyvista.PVDReader(str(series.index_path))
    assert reader.time_values == [0.0, 0.25, 1.5]
    for moment in reader.time_values:
        reader.set_active_time_value(moment)
        mesh = reader.read()[0]
        assert (mesh.n_points, mesh.n_cells) == (4, 2)
        assert np.array_equal(mesh.point_data["u"], np.full(4, moment))
        assert mesh.point_data["v"].shape == (4, 3)
        assert np.array_equal(mesh.cell_data["k"], [1.0, 2.0])
        assert mesh.field_data["TimeValue"][0] == moment


@pytest.mark.parametrize("cell_type", sorted(NODES_PER_CELL))
def test_vtk_reads_every_cell_type(tmp_path: Path, cell_type: str) -> None:
    pyvista = pytest.importorskip("pyvista")
    grid = two_cells(cell_type)
    names = ["a < b", "Φ"]
    write_vtu(tmp_path / "a.vtu", grid, FieldData({name: np.arange(len(grid.points)) for name in names}))
    mesh = pyvista.read(tmp_path / "a.vtu")
    assert [list(mesh.get_cell(at).point_ids) for at in range(2)] == grid.cells.tolist()
    assert mesh.point_data.keys() == names
