"""The pictures of studies, one for each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from .orders import QUANTITIES
from .run_comparisons import compared
from .setting_axes import SettingAxis, are_integers, is_wide, number_text
from .study_spec import (
    ContinuationSpec,
    GridSpec,
    LCurveSpec,
    OptunaSpec,
    ParetoSpec,
    RefinementSpec,
    StudySpec,
)
from .table_rows import ended, measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]


def load() -> None:
    """Loads matplotlib, where it is installed: a study draws at its end, when nothing else is done meanwhile."""
    with suppress(ImportError):
        import matplotlib.figure  # noqa: F401


def drawn(spec: StudySpec, rows: Rows, findings: Mapping[str, Any]) -> Figure:
    """The picture of a study.

    Raises:
        ValueError: there is nothing to draw.
    """
    good = [row for row in rows if ended(row)]
    if not good:
        raise ValueError("no run has ended with an answer")
    from matplotlib.figure import Figure

    if isinstance(spec, RefinementSpec):
        return _convergence(Figure, spec, findings)
    if isinstance(spec, LCurveSpec):
        return _l_curve(Figure, spec, findings)
    if isinstance(spec, ParetoSpec):
        return _front(Figure, spec, good, findings)
    return _samples(spec, good)


def _convergence(figure_type: type[Figure], spec: StudySpec, found: Mapping[str, Any]) -> Figure:
    """The differences to the limits over the size of a cell, and the slopes of the orders."""
    from matplotlib.ticker import NullLocator

    figure = figure_type(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.subplots()
    sizes = np.array(found["sizes"])
    for k, name in enumerate(name for name in QUANTITIES if name in found):
        limit, orders = found[name]["limit"], found[name]["orders"]
        if limit is None or limit == 0.0:
            continue
        errors = np.abs(np.array(found[name]["values"]) - limit) / abs(limit)
        axes.loglog(sizes, errors, "o-", color=f"C{k}", label=f"{QUANTITIES[name]}: order {orders[-1]:.2f}")
        whole = max(round(orders[-1]), 1)
        axes.loglog(sizes, errors[-1] * 1.5 * (sizes / sizes[-1]) ** whole, ":", color=f"C{k}", alpha=0.7)
        end = (sizes[0], errors[-1] * 1.5 * (sizes[0] / sizes[-1]) ** whole)
        axes.annotate(f"$h^{{{whole}}}$", end, (4, -3), textcoords="offset points", color=f"C{k}")
    if not axes.lines:
        raise ValueError("no quantity converges with an order: more or finer levels show one")
    axes.margins(x=0.12)
    axes.xaxis.set_ticks(sizes, [number_text(each) for each in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("time step" if "time.steps" in getattr(spec, "vary", {}) else "size of a cell")
    axes.set_ylabel("difference to the limit, relative")
    return _finished(figure, axes, f"{spec.study}: refinement")


def _l_curve(figure_type: type[Figure], spec: StudySpec, found: Mapping[str, Any]) -> Figure:
    if len(found["weights"]) < 2 or min((*found["misfits"], *found["terms"]), default=0.0) <= 0.0:
        raise ValueError("expected at least two runs with a misfit and a regularisation term above zero")
    figure = figure_type(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.loglog(found["misfits"], found["terms"], "o-")
    for weight, x, y in zip(found["weights"], found["misfits"], found["terms"], strict=True):
        axes.annotate(number_text(weight), (x, y), (4, 4), textcoords="offset points", fontsize="x-small")
    if found["corner"] is not None:
        k = found["runs"].index(found["corner"]["run"])
        label = f"run nearest to the corner, at weight {found['corner']['weight']:.2g}"
        axes.loglog([found["misfits"][k]], [found["terms"][k]], "o", ms=12, mfc="none", color="C3", label=label)
    axes.margins(0.15)
    axes.set_xlabel("misfit: all other terms of the objective")
    axes.set_ylabel(f"{found['term']}, without its weight")
    return _finished(figure, axes, f"{spec.study}: L-curve")


def _front(figure_type: type[Figure], spec: StudySpec, rows: Rows, found: Mapping[str, Any]) -> Figure:
    """The first two quantities of all runs, and the front."""
    from matplotlib.ticker import MaxNLocator

    names = found["of"]
    every = [(measure(row, names[0]), measure(row, names[1])) for row in rows]
    points = np.array([each for each in every if None not in each], dtype=float).reshape(-1, 2)
    if len(points) == 0:
        raise ValueError(f"no run has {' and '.join(names[:2])}")
    figure = figure_type(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.subplots()
    best = np.array(found["values"])[:, :2].reshape(-1, 2)
    axes.plot(points[:, 0], points[:, 1], "o", color="0.7", label="all runs")
    axes.plot(best[:, 0], best[:, 1], "o-" if len(names) == 2 else "o", color="C3", label="Pareto front")
    for axis, values in ((axes.xaxis, points[:, 0]), (axes.yaxis, points[:, 1])):
        if is_wide(values):
            axis.axes.set_xscale("log") if axis is axes.xaxis else axis.axes.set_yscale("log")
        elif are_integers(values):
            axis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    shown = "" if len(names) == 2 else f" of {len(names)} columns, the first two"
    return _finished(figure, axes, f"{spec.study}: Pareto front{shown}")


def _samples(spec: StudySpec, rows: Rows) -> Figure:
    """The objective, or what is minimised, over the settings of the runs."""
    name = spec.minimise if isinstance(spec, OptunaSpec) else "objective"
    rows = [row for row in rows if measure(row, name) is not None and np.isfinite(measure(row, name) or 0.0)]
    if not rows:
        raise ValueError(f"no run has a finite {name}")
    values = np.array([measure(row, name) for row in rows], dtype=float)
    vary = getattr(spec, "vary", {})
    settings = [
        SettingAxis.of(key, [row.get(key) for row in rows], key in vary and vary[key].logarithmic)
        for key in _settings(spec, rows)
    ]
    combined = isinstance(spec, GridSpec | ContinuationSpec)
    figure = compared(settings, name, values, combined)
    figure.axes[0].set_title(f"{spec.study}: {name}")
    return figure


def _settings(spec: StudySpec, rows: Rows) -> list[str]:
    """The settings that differ between the runs."""
    vary = getattr(spec, "vary", None)
    keys = (
        list(vary)
        if vary is not None
        else list(dict.fromkeys(key for each in getattr(spec, "runs", ()) for key in each))
    )
    differing = [key for key in keys if len({repr(row.get(key)) for row in rows}) > 1]
    return differing or keys[:1]


def _finished(figure: Figure, axes: Axes, title: str) -> Figure:
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small")
    return figure
