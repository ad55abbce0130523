"""Texts that are not problem files: versions, tags, encodings, sizes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.problem_file.loading import read_problem

TEXT = (Path(__file__).parents[1] / "problems/poisson_control.yaml").read_text()


def complaint(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProblemError) as caught:
        read_problem(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("%YAML 9.9\n---\n" + TEXT, "p.yaml:1: expected YAML 1.2, found 9.9"),
        ("# first\n%YAML 1.1\n---\n" + TEXT, "p.yaml:2: expected YAML 1.2, found 1.1"),
        ("%YAML\n---\n" + TEXT, "p.yaml:1: expected YAML 1.2, found none"),
        (TEXT + "seed: !!int ''\n", "seed: cannot read '' as int"),
        (TEXT + "seed: !!float '.'\n", "seed: cannot read '.' as float"),
        (TEXT + "seed: !!int '0x'\n", "seed: cannot read '0x' as int"),
        (TEXT + "seed: !!bool x\n", "seed: cannot read 'x' as bool"),
        (TEXT + "seed: 2001-01-01\n", "seed: expected a whole number of at least 0, found '2001-01-01'"),
        (TEXT + "seed: " + "1" * 5000, "...' as int"),
        (TEXT + "seed: " + "1" * 4000, "found a whole number of 4,000 digits"),
        (TEXT + "outer: {rtol: .nan}\n", "outer.rtol: expected a number above 0, or auto, found nan"),
        (TEXT + "outer: {rtol: 1e400}\n", "outer.rtol: expected a number above 0, or auto, found inf"),
        (TEXT + "seed: \x00\n", "not YAML: unacceptable character"),
        (TEXT + "---\n" + TEXT, "not YAML: but found another document"),
        (TEXT.encode("utf-16"), "not UTF-8 text"),
        (TEXT.encode() + b"# \xe9", "not UTF-8 text"),
        ("", "expected a mapping"),
        (TEXT + "? " + "k" * 100_000 + "\n: 1\n", "kkk...: unknown key"),
    ],
)
def test_a_strange_text_ends_in_a_sentence(tmp_path: Path, content: str | bytes, expected: str) -> None:
    found = complaint(tmp_path / "p.yaml", content)
    assert expected in found
    assert len(found) < 4000


@pytest.mark.parametrize("content", ["\ufeff" + TEXT, TEXT.replace("\n", "\r\n"), "%YAML 1.2\n---\n" + TEXT])
def test_byte_order_marks_and_other_line_ends_are_read(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content.encode())
    assert read_problem(path).spec.name == "poisson_control"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\n".join(f"key{i}: {i}" for i in range(250_000)), "at most 1,000,000 bytes"),
        ("\n".join(f"key{i}: {i}" for i in range(50_000)), "at most 20,000 values"),
        (TEXT + "objective: [" + "{}," * 100_000 + "]", "at most 20,000 values"),
        (TEXT.replace("name:", "x: [" + "[" * 20_000 + "]" * 20_000 + "]\nname:"), "nested too deeply"),
    ],
)
def test_huge_texts_are_refused_before_they_are_parsed_to_their_end(
    tmp_path: Path, content: str, expected: str
) -> None:
    start = time.process_time()
    assert expected in complaint(tmp_path / "p.yaml", content)
    # To its end, the second text takes nine seconds of an idle processor; a busy one may take twice as long for both.
    assert time.process_time() - start < 5.0


def test_an_endless_file_is_not_read_to_its_end() -> None:
    zero = Path("/dev/zero")
    if not zero.exists():
        pytest.skip("there is no /dev/zero")
    with pytest.raises(ProblemError, match="at most 1,000,000 bytes"):
        read_problem(zero)


def test_of_many_mistakes_the_first_are_reported(tmp_path: Path) -> None:
    found = complaint(tmp_path / "p.yaml", TEXT + "\n".join(f"key{i}: {i}" for i in range(2000))).splitlines()
    assert len(found) == 51
    assert found[-1] == "... and 1,950 more mistakes"


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "~nobody_of_that_name/x", "\ud800"])
def test_names_that_are_not_paths_are_reported_as_missing_files(name: str) -> None:
    file = read_problem(Path(__file__).parents[1] / "problems/poisson_control.yaml")
    assert file.resolve(name) is None


def test_a_mapping_that_contains_itself_is_refused() -> None:
    endless: dict[str, object] = {"name": "x"}
    endless["mesh"] = endless
    with pytest.raises(ProblemError, match="nested too deeply"):
        read_problem(endless)


def test_a_whole_number_may_be_written_with_a_power_of_ten() -> None:
    assert read_problem(Path(__file__).parents[1] / "problems/poisson_control.yaml", {"seed": 1e3}).spec.seed == 1000
