"""Damaged, shortened or hand-made checkpoints: the one before is used, or a sentence refuses; numbers never change."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import torch

import nhgd_pde as nhgd
from nhgd_pde.output.names import CHECKPOINT, EARLIER_CHECKPOINT
from nhgd_pde.output.sealed import DamagedError, read_sealed, write_sealed
from nhgd_pde.output.storage import OutputError

PROBLEMS = Path(__file__).parents[1] / "problems"
POISSON: dict[str, Any] = {"mesh.cells": [4, 4], "output.every": 0, "output.checkpoint": 1}


def load(name: str = "poisson_control", **settings: Any) -> nhgd.Problem:
    return nhgd.load(PROBLEMS / f"{name}.yaml", {**POISSON, **settings})


@pytest.fixture(scope="module")
def whole() -> nhgd.Solution:
    return nhgd.solve(load())


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after two iterations."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    nhgd.solve(load(**{"outer.iterations": 2}), output=folder)
    return folder


def copied(folder: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target))


def same(one: nhgd.Solution, other: nhgd.Solution) -> bool:
    rows = [[row["objective"] for row in each.history] for each in (one, other)]
    return one.status == other.status and np.array_equal(one.control, other.control) and rows[0] == rows[1]


def resumed(folder: Path, **settings: Any) -> nhgd.Solution:
    return nhgd.solve(load(**settings), output=folder, resume=True)


def test_the_newest_checkpoint_and_the_one_before_are_kept(cut: Path) -> None:
    found = [read_sealed(cut / name)["current"]["iteration"] for name in (CHECKPOINT, EARLIER_CHECKPOINT)]
    # The last iterate is written twice: after its iteration and at the end of the run.
    assert found == [2, 2]


# A sealed file


@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_and_no_truncation_is_taken_for_a_checkpoint(seed: int, cut: Path, tmp_path: Path) -> None:
    data, random = (cut / CHECKPOINT).read_bytes(), np.random.default_rng(seed)
    places = [*random.integers(0, 8 * len(data), 200), *range(0, 8 * 130, 7)]
    for place in map(int, places):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << (place % 8)
        (tmp_path / "a.pt").write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"a\.pt: (expected|not) a checkpoint"):
            read_sealed(tmp_path / "a.pt")
    for length in map(int, [0, 1, 126, 127, 128, *random.integers(0, len(data), 20), len(data) - 1]):
        (tmp_path / "a.pt").write_bytes(data[:length])
        with pytest.raises(DamagedError):
            read_sealed(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(data + b"\0")
    with pytest.raises(DamagedError, match=r"expected .* bytes, found"):
        read_sealed(tmp_path / "a.pt")


def test_sealed_content_is_read_back(tmp_path: Path) -> None:
    content = {"a": torch.arange(5), "b": {"c": [1.5, None, "text"]}}
    checksum = write_sealed(tmp_path / "a.pt", content)
    found = read_sealed(tmp_path / "a.pt", checksum)
    assert torch.equal(found.pop("a"), content["a"]) and found == {"b": {"c": [1.5, None, "text"]}}
    with pytest.raises(DamagedError, match="expected the file of checksum 000000000000"):
        read_sealed(tmp_path / "a.pt", "0" * 64)


class Trap:
    """Code that would run if it were unpickled."""

    def __reduce__(self) -> Any:
        return (open, ("trapped", "w"))


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sealed(tmp_path / "a.pt", {"spec": Trap()})
    with pytest.raises(DamagedError, match="not a checkpoint that can be read"):
        read_sealed(tmp_path / "a.pt")
    assert not (tmp_path / "trapped").exists()


def test_checkpoints_of_earlier_versions_are_refused_in_a_sentence(cut: Path, tmp_path: Path) -> None:
    folder = copied(cut, tmp_path)
    for name in (CHECKPOINT, EARLIER_CHECKPOINT):
        torch.save({"format": 3}, folder / name)
    with pytest.raises(OutputError, match="expected a checkpoint of format 4, found one without a checksum") as caught:
        resumed(folder)
    assert "solve without --resume starts anew" in str(caught.value) and "\n" not in str(caught.value)


# The checkpoint before


def test_after_a_damaged_checkpoint_the_one_before_is_used(whole: nhgd.Solution, cut: Path, tmp_path: Path) -> None:
    for damage in (lambda data: data[:-7], lambda data: data[:500] + b"x" + data[501:], lambda data: b""):
        folder = copied(cut, tmp_path)
        (folder / CHECKPOINT).write_bytes(damage((cut / CHECKPOINT).read_bytes()))
        told: list[str] = []
        solution = nhgd.solve(load(), output=folder, resume=True, tell=told.append)
        assert same(solution, whole)
        assert len(told) == 1 and "the run goes on from the checkpoint before it, of iteration 2" in told[0]
        assert told[0] in solution.stats["warnings"]
        assert read_sealed(folder / CHECKPOINT)["current"]["iteration"] == solution.stats["outer_iterations"]


def test_the_good_checkpoint_stays_until_there_is_another_one(cut: Path, tmp_path: Path) -> None:
    """A run that resumes from the earlier checkpoint and is killed before it writes a new one must keep it."""
    folder = copied(cut, tmp_path)
    good = (folder / EARLIER_CHECKPOINT).read_bytes()
    (folder / CHECKPOINT).write_bytes(b"damaged")

    def stop(row: Any) -> None:
        assert (folder / EARLIER_CHECKPOINT).read_bytes() == good
        raise SystemExit

    with pytest.raises(SystemExit):
        nhgd.solve(load(), output=folder, resume=True, callback=stop)
    assert (folder / EARLIER_CHECKPOINT).read_bytes() == good


def test_two_damaged_checkpoints_are_reported_in_one_sentence(cut: Path, tmp_path: Path) -> None:
    folder = copied(cut, tmp_path)
    for name in (CHECKPOINT, EARLIER_CHECKPOINT):
        (folder / name).write_bytes((cut / name).read_bytes()[:-1])
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(OutputError) as caught:
        resumed(folder)
    assert all(name in str(caught.value) for name in (CHECKPOINT, EARLIER_CHECKPOINT)) and "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_changed_history_is_reported(whole: nhgd.Solution, cut: Path, tmp_path: Path) -> None:
    """The history is a record of the run; no number of the result is taken from it."""
    folder = copied(cut, tmp_path)
    text = (cut / "history.csv").read_text()
    (folder / "history.csv").write_text(text.replace("0.", "1.", 1))
    solution = resumed(folder)
    assert np.array_equal(solution.control, whole.control)
    assert any(
        "history.csv: the rows before the checkpoint are not those" in each for each in solution.stats["warnings"]
    )
    folder = copied(cut, tmp_path)
    (folder / "history.csv").write_text(text.replace("iteration", "iterations", 1))
    with pytest.raises(OutputError, match=r"history\.csv: expected a column 'iteration'"):
        resumed(folder)
    folder = copied(cut, tmp_path)
    (folder / "history.csv").write_bytes(text.encode().replace(b",", b"\xff", 1))
    with pytest.raises(OutputError, match=r"history\.csv: the file is damaged"):
        resumed(folder)
    assert resumed(copied(cut, tmp_path)).stats["warnings"] == []


# Field by field


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, each in items:
        if path or name not in ("spec", "fingerprint"):
            yield (*path, name)
            yield from leaves(each, (*path, name))


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        content = content[name]
    return content


MISSING = object()


def variants(value: Any) -> Iterator[Any]:
    """Replacements of a value: other types, other shapes, NaN and infinity."""
    yield from (MISSING, None, "x", {}, [], torch.ones(2, 2), {"__class__": "nhgd_pde.engine.loop:Iterate"})
    if isinstance(value, torch.Tensor):
        yield value[..., :-1] if value.ndim else value[None]
        yield torch.cat([value, value], -1) if value.ndim else value[None]
        yield value[None]
        if value.is_floating_point() and value.numel():
            yield torch.full_like(value, math.nan)
            yield torch.full_like(value, math.inf)
            yield value.to(torch.int64)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from (math.nan, -math.inf, -1, True, 10**40)
        if isinstance(value, float):
            yield -1.0 - abs(value)


def malformed(content: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    holder = at(changed, path[:-1])
    if value is MISSING:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return changed


def sampled(content: dict[str, Any], count: int, seed: int) -> list[tuple[tuple[Any, ...], Any]]:
    every = [(path, value) for path in leaves(content) for value in variants(at(content, path))]
    chosen = np.random.default_rng(seed).permutation(len(every))[:count]
    return [every[at] for at in chosen]


CASES: dict[str, dict[str, Any]] = {
    "poisson_control": {"mesh.cells": [4, 4]},
    "poisson_nhgd_paper": {"mesh.cells": [4, 4], "inner.steps": 3},
    "robust_poisson": {"mesh.cells": [4, 4], "scenarios.count": 4, "scenarios.validation": 0},
}


@pytest.mark.parametrize("name", CASES)
def test_a_sample_of_malformed_checkpoints_is_refused_or_gives_a_status(name: str, tmp_path: Path) -> None:
    check_malformed(name, 40, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_many_malformed_checkpoints_are_refused_or_give_a_status(name: str, tmp_path: Path) -> None:
    check_malformed(name, 300, tmp_path)


def check_malformed(name: str, count: int, tmp_path: Path) -> None:
    """A checkpoint with one wrong field is refused with a sentence or gives a run with a status."""
    settings = {**CASES[name], "outer.iterations": 1}
    nhgd.solve(load(name, **settings), output=tmp_path / "run")
    content = read_sealed(tmp_path / "run" / CHECKPOINT)
    refused = 0
    problem = load(name, **{**settings, "outer.iterations": 2})
    for path, value in sampled(content, count, seed=1):
        (tmp_path / "run" / EARLIER_CHECKPOINT).unlink(missing_ok=True)
        write_sealed(tmp_path / "run" / CHECKPOINT, malformed(content, path, value))
        try:
            nhgd.solve(problem, output=tmp_path / "run", resume=True)
        except OutputError as error:
            assert "\n" not in str(error) and CHECKPOINT in str(error)
            refused += 1
    assert refused > 0.8 * count


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("stage",), -1, "stage: expected a count, found -1"),
        (("stage",), 1, "stage: expected 0 to 0, found 1"),
        (("current", "evaluation", "v"), torch.zeros(3, dtype=torch.float64), r"current.evaluation.v: expected shape"),
        (("current", "gradient_norm"), math.nan, "current.gradient_norm: expected a finite number, found nan"),
        (("outer",), None, "outer: expected"),
        (("counts", "solves"), MISSING, "counts.solves is missing"),
        (("extra",), 1, "extra is not known"),
        (("outer", "best", "gradient"), "x", "outer.best.gradient: expected a tensor, found 'x'"),
    ],
)
def test_the_message_names_the_wrong_field(
    path: tuple[Any, ...], value: Any, words: str, cut: Path, tmp_path: Path
) -> None:
    folder = copied(cut, tmp_path)
    (folder / EARLIER_CHECKPOINT).unlink()
    write_sealed(folder / CHECKPOINT, malformed(read_sealed(folder / CHECKPOINT), path, value))
    with pytest.raises(OutputError, match=words):
        resumed(folder)


def test_another_mesh_of_the_same_name_is_another_problem(tmp_path: Path) -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 0]], dtype=float)
    cells = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    file = {
        "name": "moved",
        "mesh": {"file": str(tmp_path / "a.vtu"), "refine": 1},
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": 1}, {"kind": "regularisation", "weight": 1e-3}],
        "outer": {"iterations": 1},
    }
    meshio.write(tmp_path / "a.vtu", meshio.Mesh(points, [("triangle", cells)]))
    nhgd.solve(nhgd.load(file), output=tmp_path / "run")
    points[4, 0] = 0.4
    meshio.write(tmp_path / "a.vtu", meshio.Mesh(points, [("triangle", cells)]))
    with pytest.raises(OutputError, match=r"the content of mesh\.file has changed since"):
        nhgd.solve(nhgd.load(file), output=tmp_path / "run", resume=True)


@pytest.mark.parametrize("kind", ["dense", "low_rank", "block"])
def test_inverses_of_every_kind_are_restored_and_other_sizes_refused(kind: str, tmp_path: Path) -> None:
    """With 225 unknowns, no two sizes are equal by chance."""
    settings = {"mesh.cells": [16, 16], "curvature.kind": kind, "inner.tests": 16, "inner.steps": 2}
    first, then = (load("poisson_control", **settings, **{"outer.iterations": count}) for count in (2, 4))
    nhgd.solve(first, output=tmp_path / "run")
    content = read_sealed(tmp_path / "run" / CHECKPOINT)
    resumed, whole = nhgd.solve(then, output=tmp_path / "run", resume=True), nhgd.solve(then)
    assert (resumed.control == whole.control).all()
    for name, value in content["state"]["inverse"].items():
        if not isinstance(value, torch.Tensor):
            continue
        (tmp_path / "run" / EARLIER_CHECKPOINT).unlink(missing_ok=True)
        cut = value[..., :-1] if value.ndim < 3 else value[:, :-1]
        write_sealed(tmp_path / "run" / CHECKPOINT, malformed(content, ("state", "inverse", name), cut))
        with pytest.raises(OutputError, match="expected"):
            nhgd.solve(then, output=tmp_path / "run", resume=True)
