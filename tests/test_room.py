"""Sizes counted from the file alone, and problems that do not fit into memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import skfem
from mangling import origins, shrunk

from nhgd_pde.building.blueprint import blueprint_of, build
from nhgd_pde.building.domains import build_domain
from nhgd_pde.linalg.memory import group_bytes, host_bytes, whole_bytes
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import ProblemFile, read_problem
from nhgd_pde.problem_file.room import check_room
from nhgd_pde.problem_file.sizes import MeshSize, control_size, mesh_size, state_size

ROOT = Path(__file__).parents[1]
POISSON = ROOT / "problems/poisson_control.yaml"


def refused(source: str | Path | dict[str, Any], **overrides: Any) -> ProblemError:
    file = read_problem(source, {key.replace("__", "."): value for key, value in overrides.items()})
    with pytest.raises(ProblemError) as caught:
        check_room(file)
    return caught.value


MESHES: list[tuple[dict[str, Any], Any]] = [
    ({"kind": "interval", "cells": 5, "refine": 1}, skfem.ElementLineP2()),
    ({"kind": "rectangle", "cells": [3, 4]}, skfem.ElementTriP2()),
    ({"kind": "rectangle", "cells": [3, 4], "refine": 2}, skfem.ElementTriP2()),
    ({"kind": "rectangle", "cells": [3, 4], "cell": "quadrilateral", "refine": 1}, skfem.ElementQuad2()),
    ({"kind": "box", "cells": [2, 3, 1], "refine": 1}, skfem.ElementTetP2()),
    ({"kind": "box", "cells": [2, 3, 1], "cell": "hexahedron"}, skfem.ElementHex2()),
    ({"kind": "disk", "refine": 3}, skfem.ElementTriP2()),
    ({"kind": "l_shape", "refine": 2}, skfem.ElementTriP2()),
]


@pytest.mark.parametrize(("mesh", "element"), MESHES)
def test_cells_are_counted_without_building_the_mesh(mesh: dict[str, Any], element: Any) -> None:
    file = read_problem(POISSON, {"mesh": mesh})
    counted, made = mesh_size(file.spec.mesh), build_domain(file).mesh
    assert counted is not None
    assert (counted.cells, counted.vertices) == (made.nelements, made.nvertices)
    assert counted.nodes == skfem.Basis(made, element).N
    assert counted.corners == len(made.t)


@pytest.mark.parametrize("path", origins()[::2], ids=lambda path: path.stem)
def test_unknowns_are_counted_without_building_the_spaces(path: Path) -> None:
    """The count includes unknowns that conditions determine; controls on a side or a part of the mesh are estimated."""
    file = ProblemFile(read_problem(shrunk(path)).spec, path)
    if path.stem in ("dup", "folded", "hang3r", "two"):
        pytest.skip("its mesh is refused")
    problem = blueprint_of(file).nominal if file.spec.parameters else build(file)
    made = problem.space.domain.mesh
    size = MeshSize(int(made.dim()), len(made.t), made.nelements, made.nvertices, made.nvertices + made.nfacets)
    size = mesh_size(file.spec.mesh) or size
    # Nodes on two periodic sides are counted on both.
    counted = state_size(file.spec, size)
    assert counted == sum(part.on_mesh.size for part in problem.space.parts) >= problem.space.size
    assert 0.5 * problem.outer_size <= control_size(file.spec, size) + 4.0


@pytest.mark.parametrize(
    ("name", "overrides", "key"),
    [
        ("poisson_control", {"mesh.cells": 1e9}, "mesh.cells"),
        ("poisson_control", {"mesh.cells": [100_000, 100_000]}, "mesh.cells"),
        ("poisson_control", {"mesh.cells": 10**300}, "mesh.cells"),
        ("poisson_control", {"mesh.refine": 40}, "mesh.refine"),
        ("poisson_control", {"mesh.refine": 10**12}, "mesh.refine"),
        ("poisson_control_3d", {"mesh.cells": 1000}, "mesh.cells"),
        ("poisson_control", {"mesh": {"kind": "disk", "refine": 15}}, "mesh.refine"),
        ("poisson_plate", {"mesh.file": "meshes/plate.msh", "mesh.refine": 20}, "mesh.refine"),
        ("heat_control", {"time.steps": 10**9}, "time.steps"),
        ("burgers_control", {"time.steps": 1e9}, "time.steps"),
        ("robust_poisson", {"scenarios.count": 10**9}, "scenarios.count"),
        ("robust_poisson", {"scenarios.count": 10**9, "method": "robbins_monro"}, "scenarios.count"),
        ("robust_poisson", {"scenarios.validation": 10**12}, "scenarios.validation"),
        ("robust_poisson", {"mesh.cells": 2000, "parameters.k.field.modes": 10**6}, "parameters.k.field.modes"),
        ("poisson_control", {"inner.tests": 10**9}, "inner.tests"),
        ("poisson_control", {"outer.memory": 10**12, "outer.iterations": 10**12}, "outer.memory"),
        (
            "poisson_control",
            {"mesh.cells": [300, 300], "inner.model": "residual", "inner.tests": 64, "hypergradient.cross": "running"},
            "hypergradient.cross",
        ),
        ("mbb_beam", {"control.penalty": [3.0] * 10**6}, "control.penalty"),
    ],
)
def test_problems_that_are_too_large_are_refused_with_key_and_bytes(
    name: str, overrides: dict[str, Any], key: str
) -> None:
    file = read_problem(ROOT / f"problems/{name}.yaml", {**overrides, "devices.memory": 16e9})
    with pytest.raises(ProblemError) as caught:
        # The cells of a mesh file are counted after reading and before refinement.
        build_domain(file)
    (issue,) = caught.value.issues
    assert issue.key == key
    assert "would take about" in issue.message
    assert "where 16.0 GB (16,000,000,000 bytes) are available" in issue.message


def test_the_option_sets_the_available_memory() -> None:
    check_room(read_problem(POISSON, {"devices.memory": 1e9}))
    check_room(read_problem(POISSON, {"mesh.cells": 10**5, "devices.memory": 1e30}))
    assert "would take about 3" in str(refused(POISSON, devices__memory=1e8))


def test_multigrid_makes_room_for_a_million_unknowns() -> None:
    large = {"mesh.cells": [100, 100, 100], "devices.memory": 24e9}
    check_room(read_problem("problems/poisson_control_3d.yaml", large))
    error = refused("problems/poisson_control_3d.yaml", **large, **{"solver.kind": "superlu"})
    assert "mesh.cells: expected a problem that fits into memory" in str(error)


def test_a_large_file_of_sensors_is_refused_by_its_length(tmp_path: Path) -> None:
    table = tmp_path / "sensors.csv"
    with table.open("wb") as stream:
        stream.truncate(10**9)
    source = {
        "name": "sensors",
        "mesh": {"kind": "rectangle", "cells": 8},
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "at": str(table)}],
    }
    found = refused(source, devices__memory=16e9)
    assert found.issues[0].key == "objective.0.at"


@pytest.mark.parametrize("path", origins(), ids=lambda path: path.stem)
def test_the_shipped_problems_fit_into_two_gigabytes(path: Path) -> None:
    check_room(read_problem(path, {"devices.memory": 2e9}))


@pytest.mark.parametrize(
    ("name", "overrides", "bytes_"),
    [
        # The peaks are those in docs/benchmarks.md and docs/verification.md.
        ("poisson_control", {"mesh.cells": 512}, 1.55e9),
        ("heat_control", {"mesh": {"kind": "rectangle", "cells": 64}, "time.steps": 40}, 0.7e9),
        ("robust_poisson_3d", {}, 2e9),
    ],
)
def test_the_memory_of_the_largest_runs_in_the_docs_is_right_up_to_a_factor_of_two(
    name: str, overrides: dict[str, Any], bytes_: float
) -> None:
    path = ROOT / f"problems/{name}.yaml"
    if name == "heat_control":
        overrides = {**overrides, "control": {"kind": "source"}, "objective.0.target": "x"}
        overrides["time.initial"] = 0
    check_room(read_problem(path, {**overrides, "devices.memory": 2.0 * bytes_}))


def test_the_command_line_refuses_before_torch_is_loaded() -> None:
    code = (
        "import sys\nfrom nhgd_pde.cli import main\n"
        f"try:\n    main([sys.argv[1], {str(POISSON)!r}, '--set', 'mesh.cells=1000000000'])\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    for command in ("check", "solve", "verify", "bench"):
        done = subprocess.run(
            [sys.executable, "-c", code, command], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert done.stdout.strip() == "2 False"
        assert "mesh.cells: expected a problem that fits into memory" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits of addresses are those of Linux")
def test_a_limit_of_the_address_space_is_respected() -> None:
    code = (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (3 * 10**9,) * 2)\n"
        "from nhgd_pde.linalg.memory import host_bytes, whole_bytes\nprint(host_bytes(), whole_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    left, whole = (float(word) for word in done.stdout.split())
    assert 0.0 < left < 3e9 and 0.0 < whole < 3e9
    assert host_bytes() <= whole_bytes()


@pytest.mark.parametrize(
    ("version", "line", "names"),
    [
        (2, "0::/a/b\n", ("memory.max", "memory.current")),
        (1, "5:cpu,memory:/a/b\n", ("memory.limit_in_bytes", "memory.usage_in_bytes")),
    ],
)
def test_limits_of_control_groups_are_respected(
    tmp_path: Path, version: int, line: str, names: tuple[str, str]
) -> None:
    """The limit is the least of a group and the groups above it; memory used by the cache of files is free."""
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    proc.write_text("3:cpuset:/a\n" + line)
    base = root if version == 2 else root / "memory"
    (base / "a/b").mkdir(parents=True)
    assert group_bytes(proc, root) == float("inf")
    for folder, limit, used in ((base / "a/b", "max", 0), (base / "a", "5000", 1000), (base, "9000", 2000)):
        (folder / names[0]).write_text(f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
    assert group_bytes(proc, root) == 4000.0
    (base / "a/memory.stat").write_text("anon 1\ninactive_file 500\ntotal_inactive_file 500\n")
    assert group_bytes(proc, root) == 4500.0
    assert group_bytes(tmp_path / "none", root) == float("inf")
