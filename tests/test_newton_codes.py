"""The hand-written Newton codes of the benchmark solve the same discrete problems as the library."""

from __future__ import annotations

import pytest

from benchmarks.newton_codes import CODES, RTOL, ours


@pytest.mark.parametrize("name", CODES)
def test_both_sides_find_the_same_optimum(name: str) -> None:
    by_hand, solution = CODES[name](24), ours(name, 24)
    assert by_hand.reduction <= RTOL and solution.status == "converged"
    assert solution.objective == pytest.approx(by_hand.objective, rel=1e-8)
    control = solution.control.ravel()
    assert abs(control - by_hand.control).max() <= 1e-4 * abs(by_hand.control).max()


def test_an_inversion_takes_hardly_more_factorisations_and_solves_than_the_code_by_hand() -> None:
    """The Hessian is indefinite on the way: without the Gauss-Newton part there were 17 factorisations, 170 solves."""
    by_hand, work = CODES["log_conductivity_inversion"](24), ours("log_conductivity_inversion", 24).stats["solves"]
    assert work["factorisations"] <= 1.3 * by_hand.factorisations + 1
    assert work["solves"] <= 1.35 * by_hand.solves
