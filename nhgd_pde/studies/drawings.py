"""The pictures of studies, one for each kind. matplotlib is imported here alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from .orders import QUANTITIES
from .study_spec import LCurveSpec, OptunaSpec, ParetoSpec, RefinementSpec, StudySpec
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
    return _samples(Figure, spec, good)


def _convergence(figure_type: type[Figure], spec: StudySpec, found: Mapping[str, Any]) -> Figure:
    """The differences to the limits over the size of a cell, and the slopes of the orders."""
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
        axes.annotate(f"$h^{{{whole}}}$", (sizes[0], errors[-1] * 1.5 * (sizes[0] / sizes[-1]) ** whole), color=f"C{k}")
    if not axes.lines:
        raise ValueError("no quantity converges with an order: more or finer levels show one")
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
        axes.annotate(f" {weight:.1e}", (x, y), fontsize="x-small", va="bottom")
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
        if _wide(values):
            axis.axes.set_xscale("log") if axis is axes.xaxis else axis.axes.set_yscale("log")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    return _finished(figure, axes, f"{spec.study}: Pareto front")


def _samples(figure_type: type[Figure], spec: StudySpec, rows: Rows) -> Figure:
    """The objective over one setting, over two settings as colours, or along parallel axes."""
    name = spec.minimise if isinstance(spec, OptunaSpec) else "objective"
    rows = [row for row in rows if measure(row, name) is not None and np.isfinite(measure(row, name) or 0.0)]
    if not rows:
        raise ValueError(f"no run has a finite {name}")
    values = np.array([measure(row, name) for row in rows], dtype=float)
    keys = _settings(spec, rows)
    columns = [_numbers([row.get(key) for row in rows]) for key in keys]
    figure = figure_type(figsize=(5.6 if len(keys) < 3 else 1.6 * len(keys) + 3.2, 4.4), layout="constrained")
    axes = figure.subplots()
    if len(keys) == 1:
        order = np.argsort(columns[0][0], kind="stable")
        axes.plot(columns[0][0][order], values[order], "o-")
        _scaled(axes, keys[0], *columns[0], axis="x")
        axes.set_ylabel(name)
        if _wide(values):
            axes.set_yscale("log")
    elif len(keys) == 2:
        shown = axes.scatter(columns[0][0], columns[1][0], c=values, norm="log" if _wide(values) else "linear", s=60)
        _scaled(axes, keys[0], *columns[0], axis="x")
        _scaled(axes, keys[1], *columns[1], axis="y")
        figure.colorbar(shown, ax=axes, label=name)
    else:
        _parallel(figure, axes, [*keys, name], [*columns, (values, None)], values)
    axes.set_title(f"{spec.study}: {name}")
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


def _numbers(given: Sequence[Any]) -> tuple[np.ndarray, list[str] | None]:
    """The values as numbers, and their names where they are none."""
    if all(isinstance(each, int | float) and not isinstance(each, bool) for each in given):
        return np.array(given, dtype=float), None
    names = list(dict.fromkeys(_name(each) for each in given))
    return np.array([names.index(_name(each)) for each in given], dtype=float), names


def _name(value: Any) -> str:
    return "x".join(map(_name, value)) if isinstance(value, list | tuple) else "-" if value is None else str(value)[:24]


def _scaled(axes: Axes, key: str, values: np.ndarray, names: list[str] | None, axis: str) -> None:
    """The label, the scale and the ticks of an axis."""
    axes.set(**{f"{axis}label": key})
    if names is not None:
        axes.set(**{f"{axis}ticks": range(len(names)), f"{axis}ticklabels": names})
    elif _wide(values):
        axes.set(**{f"{axis}scale": "log"})


def _parallel(
    figure: Figure,
    axes: Axes,
    keys: Sequence[str],
    columns: Sequence[tuple[np.ndarray, list[str] | None]],
    values: np.ndarray,
) -> None:
    """A line a run through its settings and its result, coloured by the result."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    norm = (LogNorm if _wide(values) else Normalize)(values.min(), values.max())
    heights = []
    for k, (numbers, names) in enumerate(columns):
        wide = names is None and _wide(numbers)
        scaled = np.log10(numbers) if wide else numbers
        span = np.ptp(scaled) or 1.0
        heights.append((scaled - scaled.min()) / span)
        for number in np.unique(scaled) if len(np.unique(scaled)) <= 6 else np.linspace(scaled.min(), scaled.max(), 4):
            text = names[int(number)] if names is not None else f"{10**number if wide else number:.3g}"
            axes.annotate(text, (k, (number - scaled.min()) / span), fontsize="x-small")
        axes.axvline(k, color="0.8")
    for row, value in zip(np.array(heights).T, values, strict=True):
        axes.plot(range(len(keys)), row, color=colormaps["viridis"](norm(value)), alpha=0.8)
    axes.set_xticks(range(len(keys)), keys, rotation=20, ha="right")
    axes.set_yticks([])
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=axes, label=keys[-1])


def _wide(values: np.ndarray) -> bool:
    """Whether positive values differ by so much that a logarithmic axis shows them better."""
    return bool(values.min() > 0.0 and values.max() > 20.0 * values.min())


def _finished(figure: Figure, axes: Axes, title: str) -> Figure:
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small")
    return figure
