"""Settings of runs as positions along an axis: numbers, on a logarithmic scale where they are geometric, or names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Positive values whose ratio is larger than the first number are drawn on a logarithmic axis; of two values alone, from
# the second number on.
_WIDE, _WIDE_OF_TWO = 20.0, 10.0
# Up to this many different values are the ticks of an axis themselves.
_FEW = 6


@dataclass(frozen=True, eq=False)
class SettingAxis:
    """The values of one setting in all runs.

    Attributes:
        name: the dotted key.
        positions: (runs,) numbers, or the places of names.
        names: the names in their order; None where the values are numbers.
        logarithmic: a logarithmic scale shows the values better.
    """

    name: str
    positions: np.ndarray
    names: tuple[str, ...] | None
    logarithmic: bool

    @classmethod
    def of(cls, name: str, given: Sequence[Any], logarithmic: bool = False) -> SettingAxis:
        """The axis of given values; with `logarithmic` they are known to come from a geometric range."""
        if all(isinstance(each, int | float) and not isinstance(each, bool) for each in given):
            numbers = np.array(given, dtype=float)
            return cls(name, numbers, None, bool(numbers.min() > 0.0) and (logarithmic or is_geometric(numbers)))
        order = {_title(each): each for each in given}
        try:
            names = tuple(sorted(order, key=lambda title: order[title]))
        except TypeError:  # Lists beside single values have no order.
            names = tuple(order)
        return cls(name, np.array([names.index(_title(each)) for each in given], dtype=float), names, False)

    @property
    def different(self) -> np.ndarray:
        """The different positions in rising order."""
        return np.unique(self.positions)

    @property
    def scaled(self) -> np.ndarray:
        """(runs,) the positions as lengths along the axis."""
        return np.log10(self.positions) if self.logarithmic else self.positions

    def text(self, position: float) -> str:
        """What stands at a position."""
        return self.names[round(position)] if self.names is not None else number_text(position)

    def edges(self) -> np.ndarray:
        """The ends of cells around the different positions: half way between them, by lengths along the axis."""
        middle = np.unique(self.scaled)
        if len(middle) == 1:
            found = middle[0] + np.array([-0.5, 0.5])
        else:
            between = 0.5 * (middle[1:] + middle[:-1])
            found = np.concatenate([[2 * middle[0] - between[0]], between, [2 * middle[-1] - between[-1]]])
        return np.asarray(10.0**found if self.logarithmic else found)

    def apply(self, axes: Axes, axis: str) -> None:
        """Gives the x or the y axis its label, its scale and its ticks."""
        from matplotlib.ticker import MaxNLocator, NullLocator

        own = axes.xaxis if axis == "x" else axes.yaxis
        axes.set(**{f"{axis}label": self.name})
        if self.logarithmic:
            axes.set(**{f"{axis}scale": "log"})
        ticks = self.different
        if self.names is not None or len(ticks) <= _FEW:
            own.set_ticks(ticks, [self.text(each) for each in ticks])
            own.set_minor_locator(NullLocator())
        elif not self.logarithmic and are_integers(self.positions):
            own.set_major_locator(MaxNLocator(integer=True))


def is_geometric(values: np.ndarray) -> bool:
    """Whether a logarithmic axis shows values better: they are far apart, or nearer to equal ratios than steps."""
    values = np.unique(values)
    if not values.min() > 0.0:
        return False
    if len(values) < 3:
        return bool(values.max() >= _WIDE_OF_TWO * values.min())
    ratios, steps = np.diff(np.log(values)), np.diff(values)
    even, far = ratios.std() / ratios.mean() < steps.std() / steps.mean(), values.max() > _WIDE * values.min()
    # Rounding errors of steps that are all equal make no scale.
    return bool(far or (even and steps.max() > 1.5 * steps.min()))


def is_wide(values: np.ndarray) -> bool:
    """Whether positive results differ by so much that a logarithmic scale shows them better."""
    return bool(values.min() > 0.0 and values.max() > _WIDE * values.min())


def are_integers(values: np.ndarray) -> bool:
    return bool(np.all(values == np.round(values)))


def number_text(value: float) -> str:
    """A number in three digits, such as 0.25 or 1e-6."""
    if 0.01 <= abs(value) < 10_000 or value == 0.0:
        return f"{value:.4g}" if value == round(value) else f"{value:.3g}"
    digits, _, exponent = f"{value:.2e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _title(value: Any) -> str:
    return (
        "x".join(map(_title, value)) if isinstance(value, list | tuple) else "-" if value is None else str(value)[:24]
    )
