"""The sections of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..output.field_layout import pictured
from ..output.pictures import answer_panels, arranged, convergence_panels, histogram, panel_height, png
from ..output.progress import is_shown
from .markup import Markup, image, number, pairs, table, tag
from .material import Material
from .problem_words import (
    Words,
    constraint_words,
    control_words,
    equation_words,
    random_words,
    task_words,
    term_words,
)

# Resolution of a picture, in dots per inch.
_DPI = 130

_COUNTS = {
    "solves": "right-hand sides solved with a factorisation of the size of the state",
    "factorisations": "factorisations of the size of the state",
    "residuals": "residuals of the state equation",
    "products": "products with its matrices",
    "riesz_solves": "solves with the inner products",
    "coarse_solves": "right-hand sides solved on a coarser mesh",
}
_COLUMNS = {
    "iteration": "iteration",
    "objective": "objective",
    "gradient_norm": "|gradient|",
    "state_residual": "state error",
    "adjoint_residual": "adjoint error",
    "solves": "solves",
    "seconds": "seconds",
    "scenarios": "scenarios",
}

# What the parts of the error of the gradient are.
_ERROR_PARTS = {
    "inner": ("state", "The state satisfies its equation only up to the error above."),
    "adjoint": ("adjoint variable", "The adjoint variable satisfies its equation only up to the error above."),
    "sampling": (
        "sampling",
        "The gradient was taken from a part of the scenarios; zero without random inputs, and where all were used.",
    ),
}

# What the errors of the objective are.
_ERRORS = {
    "discretisation": ("mesh and time steps", "Estimate of the distance from the optimum of the continuous problem."),
    "estimate": ("that estimate", "How far the estimate itself may be off."),
    "sampling": ("sample", "Half the width of the interval over fresh scenarios."),
    "optimisation": ("optimiser", "Estimate of the distance from the optimum on this mesh."),
    "algebraic": ("linear systems", "The state satisfies its equation only up to the residual."),
}

Section = tuple[str, str, list[Any]]


def what_was_solved(material: Material, content: Mapping[str, Any]) -> Section:
    """Equation or task, control, objective, constraints and random inputs in words; the problem file."""
    groups: list[tuple[str, Words]] = []
    if "task" in content:
        groups = [("Task", task_words(content["task"]))]
    else:
        groups = [
            ("Equation", equation_words(content)),
            ("Control", control_words(content)),
            ("Objective: the sum of", term_words(content)),
            ("Constraints", constraint_words(content)),
            ("Random inputs", random_words(content)),
        ]
    parts = [each for title, words in groups if words for each in (tag("h3", title), table(words))]
    folded = tag("details", tag("summary", "The problem file with all its values"), tag("pre", material.problem_yaml))
    return "problem", "What was solved", [*parts, folded]


def on_what(material: Material) -> Section:
    """Sizes, the method, devices and versions."""
    summary, rows = material.summary, []
    if material.shown is not None:
        grid = material.shown.grid
        rows.append(("mesh", f"{len(grid.cells):,} cells ({grid.cell_type}), {len(grid.points):,} nodes"))
    names = {"state_dofs": "unknowns of the state", "control_dofs": "unknowns of the control", "scenarios": "scenarios"}
    rows += [(text, number(summary.get(key), key)) for key, text in names.items() if key in summary]
    texts = {"method": "method", "model": "inner model", "curvature": "inverse", "solver": "linear solver"}
    rows += [(text, str(summary[key])) for key, text in texts.items() if summary.get(key)]
    rows.append(("devices", pairs(summary.get("devices") or {})))
    for key in ("roles", "ranks"):
        if (summary.get(key) or {}).get("count", 1) > 1:
            rows.append((key, number(summary[key]["count"], f"{key}.count")))
    rows.append(("seed", number(summary.get("seed"), "seed")))
    rows.append(("versions", ", ".join(f"{k} {v}" for k, v in (summary.get("versions") or {}).items())))
    if summary.get("commit"):
        rows.append(("commit", str(summary["commit"])))
    return "setting", "On what", [table(rows)]


def result(material: Material) -> Section:
    """The objective and its terms, controls that are numbers, constraints, measures of a task, a search."""
    summary = material.summary
    rows = [("objective", number(summary.get("objective"), "objective"))]
    rows.append(("objective at the start", number(summary.get("objective_initial"), "objective_initial")))
    parts: list[Any] = [table(rows), *_accuracy(summary)]
    if summary.get("terms"):
        terms = [(name, number(value, f"terms.{name}")) for name, value in summary["terms"].items()]
        parts += [tag("h3", "Terms of the objective"), table(terms)]
    numbers = {
        "controls": "Controls that are numbers",
        "measures": "Measures of the task",
        "population": "Search for the start",
    }
    for key, title in numbers.items():
        if summary.get(key):
            parts += [tag("h3", title), table(_leaves(summary[key], key))]
    for place, constraint in enumerate(summary.get("constraints") or []):
        kind = constraint.get("kind", place)
        parts += [tag("h3", f"Constraint: {kind}"), table(_leaves(constraint, f"constraints.{place}", ("kind",)))]
    return "result", "Result", parts


def pictures(material: Material) -> Section | None:
    """The fields, each in a picture of its own, so that a small screen shows them one below the other."""
    found = []
    if material.shown is not None:
        shown = material.shown
        for panel in answer_panels(shown, pictured(shown.data)):
            content = png(arranged([panel], "", panel_height(shown.grid)), _DPI)
            found.append(image(content, f"Picture: {panel.title}"))
    if material.images is not None:
        found.append(image(material.images, "The images that are the answer"))
    return ("fields", "Fields", [tag("div", *found, class_="pictures")]) if found else None


_WITHOUT_EVALUATION = (
    "The objective is quadratic in the control: most iterations know the new objective and gradient from a product "
    "with the Hessian, without solving for state and adjoint anew."
)


def convergence(material: Material) -> Section:
    """The way of the objective and of the gradient: a picture and the table."""
    summary, rows = material.summary, material.history
    names = {
        "outer_iterations": "outer iterations",
        "evaluations": "controls at which state and adjoint were solved for",
        "gradient_norm": "norm of the gradient",
        "gradient_norm_initial": "norm of the gradient at the start",
    }
    parts: list[Any] = [table((text, number(summary.get(key), key)) for key, text in names.items())]
    if (summary.get("evaluations") or 0) < (summary.get("outer_iterations") or 0):
        parts.append(tag("p", _WITHOUT_EVALUATION, class_="note"))
    for panel in convergence_panels(rows):
        content = png(arranged([panel], "", 3.4), _DPI)
        parts.append(tag("div", image(content, "Gradient and objective over the iterations"), class_="pictures"))
    parts.append(_iterations(rows) if rows else tag("p", "The run has no history."))
    return "convergence", "Convergence", parts


def _iterations(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """The table of the history, of a long one with the rows that the command line shows."""
    columns = [key for key in _COLUMNS if key in rows[0]]
    columns += [key for key in rows[0] if key.startswith("term_")]
    shown = [row for k, row in enumerate(rows) if is_shown(k) or k == len(rows) - 1]
    lines = [[_cell(row[key]) for key in columns] for row in shown]
    head = [_COLUMNS.get(key, key.removeprefix("term_")) for key in columns]
    left_out = f" ({len(shown)} of {len(rows)} rows)" if len(shown) < len(rows) else ""
    return tag("details", tag("summary", f"Table of the iterations{left_out}"), table(lines, head))


def certificates(material: Material) -> Section:
    """How far state, adjoint variable and gradient can be wrong, in sentences."""
    summary = material.summary
    state, adjoint, gradient = (
        number(summary.get(key), key) for key in ("state_residual", "adjoint_residual", "gradient_error")
    )
    sentences = [
        tag("p", "The state satisfies its discrete equation up to a relative error of ", state, ", and the adjoint "
            "variable its equation up to ", adjoint, "."),
        tag("p", "The gradient, whose norm is ", number(summary.get("gradient_norm"), "gradient_norm"),
            ", has an error of about ", gradient, "."),
    ]  # fmt: skip
    parts = summary.get("gradient_error_parts") or {}
    if parts:
        sentences.append(
            tag("p", "This error is the sum of these parts, in the norm of the gradient, and of rounding:")
        )
        rows = []
        for key, value in parts.items():
            name, why = _ERROR_PARTS.get(key, (key, ""))
            rows.append((name, number(value, f"gradient_error_parts.{key}"), why))
        sentences.append(table(rows, ("from", "error", "why")))
    note = (
        "The errors of state and adjoint variable are bounds: the dual norm of the residual, divided by the norm of "
        "the solution and, where it is known, by the inf-sup constant. Errors of the discretisation are not counted."
    )
    return "certificates", "Certificates", [*sentences, tag("p", note, class_="note")]


def uncertainty(material: Material) -> Section | None:
    """The judgement of an answer over scenarios, and the distribution of the objective."""
    found = material.summary.get("uncertainty")
    if not found:
        return None
    parts: list[Any] = []
    interval = found.get("interval")
    if interval and found.get("out_of_sample") is not None:
        ends = [number(end, f"uncertainty.interval.{k}") for k, end in enumerate(interval)]
        parts.append(
            tag("p", f"{found.get('risk')} in ", number(found.get("fresh_scenarios"), "uncertainty.fresh_scenarios"),
                " fresh scenarios: ", number(found["out_of_sample"], "uncertainty.out_of_sample"), ", with ",
                number(found.get("confidence"), "uncertainty.confidence"), " confidence between ", ends[0], " and ",
                ends[1], ".")
        )  # fmt: skip
    drawn = _distribution(material)
    if drawn is not None:
        parts.append(tag("div", drawn, class_="pictures"))
    parts.append(table(_leaves(found, "uncertainty")))
    return "uncertainty", "Random inputs", parts


def _distribution(material: Material) -> Markup | None:
    fresh = [row for row in material.scenarios if not row["sample"]]
    rows = fresh or list(material.scenarios)
    values, weights = (np.array([row[key] for row in rows]) for key in ("objective", "weight"))
    if not rows or not np.isfinite(values).all() or not weights.sum() > 0:
        return None
    found = material.summary["uncertainty"]
    mark = found.get("out_of_sample" if fresh else "in_sample")
    marks = {} if mark is None else {str(found.get("risk")): float(mark)}
    figure = histogram(values, weights, marks, f"objective in {len(values):,} scenarios")
    return image(png(figure, _DPI), "Distribution of the objective")


# What follows the last iteration, without and with random inputs.
_AFTER_LAST = ("after the last iteration", "judging the answer in fresh scenarios")


def work(material: Material) -> Section:
    """Where time went, and what was counted."""
    summary, rows = material.summary, material.history
    total, output = summary.get("seconds"), summary.get("seconds_output")
    parts: list[Any] = []
    if total is not None:
        times = [float(row["seconds"]) for row in rows if row.get("seconds") is not None] or [float(total)]
        spent = {
            "start and first evaluation": min(times[0], total),
            "iterations": times[-1] - times[0],
            _AFTER_LAST[bool(summary.get("uncertainty"))]: max(total - times[-1], 0.0),
            "writing files": output or 0.0,
        }
        whole = sum(spent.values()) or 1.0
        bars = [
            (text, f"{part:.3g} s", Markup(f'<span class="bar" style="width:{100 * part / whole:.1f}%"></span>'))
            for text, part in spent.items()
        ]
        parts.append(tag("div", table(bars), class_="bars"))
    counted = [
        ("seconds, files not counted", number(total, "seconds")),
        ("seconds for files", number(output, "seconds_output")),
    ]
    if summary.get("peak_memory_bytes"):
        counted.append(("largest memory, bytes", number(summary["peak_memory_bytes"], "peak_memory_bytes")))
    counted += [
        (_COUNTS.get(key, key), number(value, f"solves.{key}")) for key, value in (summary.get("solves") or {}).items()
    ]
    return "work", "Time and work", [*parts, table(counted)]


def warnings(material: Material) -> Section:
    """What makes the result worse than it need be."""
    found = material.summary.get("warnings") or []
    said = tag("ul", *(tag("li", text) for text in found)) if found else tag("p", "None.")
    return "warnings", "Warnings", [said]


def _cell(value: Any) -> Any:
    return "-" if value is None else number(value)


def _accuracy(summary: Mapping[str, Any]) -> list[Any]:
    """The errors of the objective and the number of digits that count; nothing where they were not estimated."""
    if "errors" not in summary:
        return []
    rows = [
        (name, f"{number(size, key)}. {text}")
        for key, (name, text) in _ERRORS.items()
        if (size := summary["errors"].get(key)) is not None
    ]
    digits = summary.get("digits")
    if digits is not None:
        rows.append(("digits of the objective that count", str(digits)))
    if summary.get("discretisation_missing"):
        rows.append(("mesh", f"no estimate: {summary['discretisation_missing']}"))
    return [tag("h3", "Errors of the objective"), table(rows)]


def _leaves(content: Any, key: str, left_out: Sequence[str] = ()) -> list[tuple[str, Any]]:
    """The numbers and texts in nested mappings and lists, each with its place."""
    found: list[tuple[str, Any]] = []
    items = content.items() if isinstance(content, Mapping) else enumerate(content)
    for name, value in items:
        if name in left_out:
            continue
        at, label = f"{key}.{name}", str(name).replace("_", " ")
        if isinstance(value, list) and value and all(isinstance(each, int | float | None) for each in value):
            cells = [number(each, f"{at}.{k}") for k, each in enumerate(value[:12])]
            more = f" and {len(value) - 12} more" if len(value) > 12 else ""
            found.append((label, tag("span", *_separated(cells), more)))
        elif isinstance(value, Mapping | list):
            found += [(f"{label}, {inner}", cell) for inner, cell in _leaves(value, at)]
        else:
            found.append((label, value if isinstance(value, str) else number(value, at)))
    return found


def _separated(cells: Sequence[Markup]) -> list[Any]:
    return [each for k, cell in enumerate(cells) for each in ([", ", cell] if k else [cell])]
