"""A part of the runs of `benchmarks.storage` and `benchmarks.kills`."""

from __future__ import annotations

import pytest
from processes import linux
from storage import mounts

from benchmarks.copies import load_everything
from benchmarks.kills import KINDS, Kind, try_kills
from benchmarks.storage import PLACES, try_damage, try_place

BAD = ("LOST", "ORPHANS", "SILENT SURVIVORS", "TRACEBACK", "TEMPORARIES LEFT", "OTHER NUMBERS")


def test_damaged_checkpoints_give_the_same_numbers_or_a_sentence() -> None:
    found = try_damage(30, seed=1)
    assert set(found) == {"the same numbers", "refused in a sentence"}
    # If both files are damaged the resume is refused, if one is damaged it is not.
    assert found["refused in a sentence"] < found["the same numbers"]


@linux
@mounts
def test_places_where_files_cannot_be_written_end_in_sentences() -> None:
    load_everything()
    for place in PLACES:
        code, told, resumed = try_place(place)
        assert code in (0, 1, 2) and "Traceback" not in told and "TRACEBACK" not in told, (place.name, told)
        assert resumed in ("the same numbers", "no checkpoint"), (place.name, resumed)
        if place.mounts is not None and code:
            assert "cannot be" in told, (place.name, told)


@pytest.mark.slow
@linux
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_runs_that_are_killed_again_and_again_lose_nothing(kind: Kind) -> None:
    """Runs with several processes take seconds to start: their three kills are of each victim in turn."""
    load_everything()
    kills = 3 if kind.helpers else 6
    found = try_kills(kind, kills, seed=1)
    assert found["kills"] == kills and not any(found[name] for name in BAD), dict(found)
    assert found["runs that ended with the same numbers"] > 0
