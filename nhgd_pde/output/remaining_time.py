"""How long a run is likely to go on, from the rate at which its gradient falls."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

# Rows from whose times and gradients the rate is taken.
_WINDOW = 12
# Seconds after which a run is long enough for an estimate.
_LONG = 5.0


@dataclass
class Outlook:
    """A line such as `iteration 12, 34 s, gradient 3e-5 of the first; about 20 s more to 1e-8`.

    Attributes:
        goal: the gradient relative to the first one at which the run ends; None where it ends by another measure.
        most: the largest number of iterations; None where it is not known.
    """

    goal: float | None = None
    most: int | None = None
    _first: float | None = None
    _rows: deque[tuple[int, float, float]] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def add(self, record: Mapping[str, object]) -> None:
        """Note a row of the history; one without iteration, seconds and a gradient above zero is left out."""
        values = [record.get(key) for key in ("iteration", "seconds", "gradient_norm")]
        numbers = [float(each) for each in values if isinstance(each, int | float) and math.isfinite(each)]
        if len(numbers) < 3 or numbers[2] <= 0.0:
            return
        if self._first is None:
            self._first = numbers[2]
        self._rows.append((int(numbers[0]), numbers[1], numbers[2] / self._first))

    def line(self) -> str:
        """The line; empty for a run that has not taken long yet."""
        if len(self._rows) < 3 or self._rows[-1][1] < _LONG:
            return ""
        iteration, seconds, share = self._rows[-1]
        text = f"iteration {iteration}, {duration(seconds)}, gradient {_power(share)} of the first"
        to_goal, to_end = self._to_goal(), self._to_end()
        if to_goal is not None and (to_end is None or to_goal <= to_end):
            return f"{text}; about {duration(to_goal)} more to {_power(self.goal or 0.0)}"
        return text if to_end is None else f"{text}; at most {duration(to_end)} more"

    def _to_goal(self) -> float | None:
        """Seconds until the gradient has fallen to the goal; None where it does not fall, or is there."""
        if self.goal is None or self.goal <= 0.0 or self._rows[-1][2] <= self.goal:
            return None
        times = [seconds for _, seconds, _ in self._rows]
        logs = [math.log(share) for _, _, share in self._rows]
        middle, level = sum(times) / len(times), sum(logs) / len(logs)
        spread = sum((t - middle) ** 2 for t in times)
        if spread <= 0.0:
            return None
        # The slope of the straight line of least squares.
        rate = -sum((t - middle) * (g - level) for t, g in zip(times, logs, strict=True)) / spread
        return math.log(self._rows[-1][2] / self.goal) / rate if rate > 0.0 else None

    def _to_end(self) -> float | None:
        """Seconds until the largest number of iterations."""
        (first, begun, _), (last, now, _) = self._rows[0], self._rows[-1]
        if self.most is None or last <= first or last >= self.most:
            return None
        return (self.most - last) * (now - begun) / (last - first)


def _power(number: float) -> str:
    """A number of one digit, such as 3e-5."""
    digit, _, exponent = f"{number:.0e}".partition("e")
    return f"{digit}e{int(exponent)}"


def duration(seconds: float) -> str:
    """Seconds in the unit that people would say them in."""
    for limit, size, unit in ((120.0, 1.0, "s"), (7200.0, 60.0, "min"), (172_800.0, 3600.0, "h")):
        if seconds < limit:
            return f"{seconds / size:.2g} {unit}" if seconds / size < 10.0 else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400.0:.0f} days"
