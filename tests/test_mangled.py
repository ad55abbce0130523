"""Mangled files: no traceback, no warning, no hang; `python -m benchmarks.mangled` runs thousands of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mangled_runs import outcomes
from mangling import mangled, prepare

_FILES, _AT_ONCE = 300, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mangled")
    prepare(folder)
    return folder


@pytest.mark.parametrize("first", range(0, _FILES, _AT_ONCE))
def test_mangled_files_end_in_a_sentence(first: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for number in range(first, first + _AT_ONCE):
        for outcome in outcomes(number, folder, solve=number % 20 == 0):
            made = mangled(number)
            assert not outcome.failure, f"file {number} of {made.origin}, {made.changes}: {outcome.failure}"


def test_mangled_files_are_reproducible() -> None:
    assert [mangled(k).content for k in range(20)] == [mangled(k).content for k in range(20)]


def test_many_mangled_files_pass_the_schema(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all files were refused by the schema, nothing would be built from them."""
    monkeypatch.chdir(folder)
    codes = [outcome.code for number in range(1000, 1040) for outcome in outcomes(number, folder, solve=False)]
    assert codes.count(0) >= 4
