"""The posterior of a run that has ended, written into its folder."""

from __future__ import annotations

from pathlib import Path

from ..output.atomic import write_atomically
from ..output.fields import write_vtu
from ..output.names import POSTERIOR, POSTERIOR_FIELDS, POSTERIOR_NUMBERS
from ..output.storage import OutputError, writing
from ..output.strict_json import json_text
from .inferred import chain_lines, chain_numbers
from .recall import recalled
from .solution import Solution


def write_posterior(folder: Path, chain: int | None = None) -> list[str]:
    """Computes the posterior of the run in a folder and writes its files; returns what there is to say.

    Args:
        chain: states of a Markov chain that checks it; None for none.

    Raises:
        OutputError: there is no run that has ended, its problem has no `inference`, or it has no posterior.
        ProblemError: its problem can no longer be built.
    """
    solution = recalled(folder)
    if not isinstance(solution, Solution) or solution.inferred is None:
        raise OutputError(f"{folder}: expected a run whose problem file has a section inference, found one without")
    try:
        solution.posterior()
    except (ValueError, ArithmeticError) as error:
        raise OutputError(f"{folder}: {error}") from error
    with writing(folder / POSTERIOR, "made"):
        (folder / POSTERIOR).mkdir(exist_ok=True)
    fields = solution.inferred.fields()
    if fields is not None:
        write_vtu(folder / POSTERIOR_FIELDS, *fields)
    numbers, lines = dict(solution.inferred.numbers()), solution.inferred.lines()
    if chain is not None:
        found = solution.inferred.chain(chain)
        numbers["chain"], lines = chain_numbers(found), [*lines, *chain_lines(found)]
    write_atomically(folder / POSTERIOR_NUMBERS, json_text(numbers, POSTERIOR_NUMBERS))
    where = f"{folder / POSTERIOR_FIELDS}: open it in ParaView; " if fields is not None else ""
    return [*lines, f"{where}{folder / POSTERIOR_NUMBERS} has the numbers"]
