"""The results as text: one csv of all records, and a table for people."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..linalg.counts import Counts
from .results import GAPS, ProblemResults, median
from .trials import TrialPoint

_COUNTS = tuple(Counts().as_dict())
COLUMNS = (
    *("record", "problem", "contender", "seed", "iteration", "evaluations", "inner_steps", "refinement_steps"),
    *("seconds", *_COUNTS),
    *("objective", "true_objective", "relative_gap", "true_gradient_norm", "hypergradient_error", "status"),
)
_DASH = "–"


def csv_text(results: Iterable[ProblemResults]) -> str:
    """Every record in a line: `run` an outer iterate, `hypergradient` an evaluation at one point, `peer` a library."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for each in results:
        for record in _records(each):
            writer.writerow({"problem": each.name, **record})
    return stream.getvalue()


def _records(results: ProblemResults) -> Iterator[dict[str, object]]:
    for judged in results.runs:
        finished = judged.run
        for k, (point, truth) in enumerate(zip(finished.points, judged.truths, strict=True)):
            yield {
                "record": "run",
                "contender": finished.contender.label,
                "seed": finished.seed,
                **{name: getattr(point, name) for name in ("iteration", "evaluations", "seconds", "objective")},
                **point.counts.as_dict(),
                "true_objective": truth.objective,
                "relative_gap": results.reference.gap(truth.objective),
                "true_gradient_norm": truth.gradient_norm,
                "status": finished.status if k + 1 == len(finished.points) else "",
            }
    for errors in results.errors:
        for error in errors.errors:
            yield {
                "record": "hypergradient",
                "contender": errors.label,
                "seed": errors.seed,
                **{
                    name: getattr(error, name) for name in ("evaluations", "inner_steps", "refinement_steps", "seconds")
                },
                **error.counts.as_dict(),
                "hypergradient_error": error.error,
            }
    for peer in results.peers:
        yield {
            "record": "peer",
            "contender": peer.name,
            "refinement_steps": peer.steps,
            "seconds": peer.seconds,
            "hypergradient_error": peer.error,
            "status": peer.setting,
        }


def markdown(results: Sequence[ProblemResults], made: Sequence[str]) -> str:
    """The tables of all problems, after lines on how they were made."""
    gaps = " / ".join(f"{gap:.0e}".replace("e-0", "e-") for gap in GAPS)
    lines = ["# Side by side", "", *(f"    {line}" for line in made), ""]
    lines += [
        f"Medians over the seeds to relative gaps {gaps} of the true reduced objective, (Phi - Phi*) / (Phi_0 - Phi*); "
        f"`{_DASH}` where half of the seeds or more do not get there; `reached` says how many do. Solves are "
        "right-hand sides put through a factorisation of the state's size; products are those with the Jacobian of "
        "the state.",
    ]
    for each in results:
        lines += ["", f"## {each.name}", "", *_problem_lines(each)]
    return "\n".join(lines) + "\n"


def _problem_lines(results: ProblemResults) -> list[str]:
    reference = results.reference
    lines = [
        f"{results.description}; Phi_0 = {reference.initial:.9e}, Phi* = {reference.optimum:.9e} "
        f"(found by: {reference.source})."
    ]
    if results.runs:
        lines += ["", *_run_table(results)]
    if results.errors:
        text = "Relative error of the hypergradient at one point, a step of steepest descent from the start; medians:"
        lines += ["", text, "", *_error_table(results)]
    if results.peers:
        text = "The same at the exact inner solution, other libraries beside ours:"
        lines += ["", text, "", *_peer_table(results)]
    return lines


def _run_table(results: ProblemResults) -> list[str]:
    measures: dict[str, tuple[Callable[[TrialPoint], float], Callable[[float], str]]] = {
        "solves": (lambda point: point.counts.solves, _whole),
        "products": (lambda point: point.counts.products, _whole),
        "seconds": (lambda point: point.seconds, _seconds),
        "outer iterations": (lambda point: point.iteration, _whole),
    }
    head = ["contender", *measures, "reached", "final gap", "status"]
    rows = []
    for label in results.labels:
        runs = results.of(label)
        if not runs:
            continue
        cells = [
            " / ".join(write(results.median_to(label, gap, what)) for gap in GAPS) for what, write in measures.values()
        ]
        reached = " / ".join(str(results.share(label, gap)[0]) for gap in GAPS) + f" of {len(runs)}"
        statuses = Counter(judged.run.status for judged in runs)
        status = ", ".join(f"{name} {count}" if len(statuses) > 1 else name for name, count in statuses.items())
        rows.append([label, *cells, reached, _small(results.final_gap(label)), status])
    if results.choices:
        head.append("steps found")
        rows = [[*row, str(results.choices.get(row[0], ""))] for row in rows]
    return table(head, rows)


def _error_table(results: ProblemResults) -> list[str]:
    rows = []
    for label in results.labels:
        of = [errors.errors for errors in results.errors if errors.label == label and errors.errors]
        if of:
            first, last = [each[0] for each in of], [each[-1] for each in of]
            errors = [_small(median([each.error for each in some])) for some in (first, last)]
            work = [(each.inner_steps, each.refinement_steps, each.counts.solves) for each in last]
            rows.append([label, *errors, *(_whole(median(list(column))) for column in zip(*work, strict=True))])
    return table(["contender", "error, first", "error, last", "inner steps", "refinement steps", "solves"], rows)


def _peer_table(results: ProblemResults) -> list[str]:
    """A row for each library and setting, with columns for each number of steps; notes are below."""
    ran = [peer for peer in results.peers if peer.setting]
    steps = sorted({peer.steps for peer in ran})
    rows: dict[tuple[str, str], list[str]] = {}
    for peer in ran:
        row = rows.setdefault((peer.name, peer.setting), [peer.name, peer.setting])
        row += [_small(peer.error), _seconds(peer.seconds)]
    head = ["who", "setting", *(text for count in steps for text in (f"error, {count} steps", "seconds"))]
    notes = {f"- {peer.name}: {peer.note}" for peer in results.peers if peer.note}
    return [*table(head, list(rows.values())), "", *sorted(notes)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns also line up as plain text."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else _DASH


def _seconds(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) and value < 10 else f"{value:,.0f}" if math.isfinite(value) else _DASH


def _small(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else _DASH
