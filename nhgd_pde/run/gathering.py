"""Brings the states that are spread over the ranks of a team to rank 0, which writes the fields and the solution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..engine.loop import Iterate
from ..engine.oracle import Oracle, Unsolved
from ..engine.scenarios.team import Team


class Gathering:
    """Where the states of one run are.

    Attributes:
        spread: the states of iterates are spread over several ranks.
        abandoned: this rank has gone on without the other ranks.

    Args:
        judge: the oracle that judges the start, see `Method.judge`.
    """

    def __init__(self, oracle: Oracle, judge: Any, team: Team) -> None:
        self._oracle: Any = oracle
        self._judge, self.spread, self.abandoned = judge, team.size > 1, False

    def whole(self, iterate: Iterate) -> Iterate:
        """The iterate, on rank 0 with the states of all scenarios; all ranks have to call this together."""
        if not self.spread or isinstance(iterate.oracle, Unsolved):
            return iterate
        from ..engine.scenarios.scenario_state import ScenarioState

        # The states at a start that is a solution may be states of the judge.
        judged = isinstance(iterate.oracle, ScenarioState) and self._judge is not None
        return replace(iterate, oracle=(self._judge if judged else self._oracle).whole(iterate.oracle))

    def end(self, iterate: Iterate) -> Iterate:
        """The last iterate with the states of all scenarios; nothing is spread any more."""
        iterate = self.whole(iterate)
        self.spread = False
        return iterate

    def abandon(self, iterate: Iterate) -> Iterate:
        """The last iterate with the nominal state alone, as the other ranks are lost or left where they are."""
        if not self.spread or isinstance(iterate.oracle, Unsolved):
            return iterate
        self.spread, self.abandoned = False, True
        return replace(iterate, oracle=self._oracle.bare(iterate.oracle))
