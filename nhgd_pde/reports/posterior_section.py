"""The section of a report on the posterior of an inverse problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..output.field_layout import Panel, field_panels
from ..output.pictures import arranged, panel_height, png
from .markup import image, number, table, tag
from .material import Material

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Resolution of a picture, in dots per inch; the fields that are drawn where they are there.
_DPI = 130
_FIELDS = ("mean", "posterior_std", "prior_std", "posterior_sample_0", "prior_sample_0")


def posterior_section(material: Material) -> tuple[str, str, list[Any]] | None:
    """What the data have told: information gain, intervals, the spectrum, mean and standard deviations as fields."""
    found = material.posterior
    if not found:
        return None
    names = {
        "measured_values": "measured values",
        "noise_ratio": "difference of measured and computed values, over the noise",
        "information_gain": "information gain, nats",
        "divergence": "divergence of posterior from prior, nats",
    }
    parts: list[Any] = [table((text, number(found.get(key))) for key, text in names.items())]
    rows = [_interval(each) for each in found.get("intervals") or []]
    if rows:
        parts.append(table(rows, ("", "value", "from", "to", "std", "std before the data")))
    drawn = []
    if material.posterior_fields is not None:
        shown = material.posterior_fields
        wanted = [name for name in _FIELDS if name in shown.data.point]
        for panel in field_panels(shown, wanted):
            content = png(arranged([panel], "", panel_height(shown.grid)), _DPI)
            drawn.append(image(content, f"The field {panel.title}"))
    eigenvalues = [float(value) for value in found.get("eigenvalues") or []]
    if eigenvalues:
        content = png(arranged([Panel("eigenvalues against the prior", _spectrum(eigenvalues))], "", 3.4), _DPI)
        drawn.append(image(content, "Eigenvalues of the misfit's Hessian against the prior"))
    if drawn:
        parts.append(tag("div", *drawn, class_="pictures"))
    note = "Data inform directions with eigenvalues above 1; the line in the picture is at 1."
    return "posterior", "Posterior", [*parts, tag("p", note, class_="note")]


def _interval(found: Mapping[str, Any]) -> list[Any]:
    return [str(found["name"]), *(number(found[key]) for key in ("value", "low", "high", "std", "prior_std"))]


def _spectrum(eigenvalues: Sequence[float]) -> Any:
    def draw(axes: Axes) -> None:
        axes.semilogy(range(1, len(eigenvalues) + 1), [abs(value) for value in eigenvalues], "o-", markersize=3)
        axes.axhline(1.0, color="grey", linewidth=0.8)

    return draw
