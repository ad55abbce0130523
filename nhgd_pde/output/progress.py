"""The table that shows how a run goes on: live on a terminal, fewer and plain lines in a pipe."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TextIO, cast

from .streams import abandon

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from .remaining_time import Outlook

Mode = Literal["quiet", "normal", "verbose"]

# Number of rows that a live table keeps in sight after the first one.
_TAIL = 20
# Seconds between two refreshes of a live table.
_REFRESH_SECONDS = 1 / 8


class Progress:
    """Title, a row an iteration, final message; as a context manager it restores the terminal on any exit.

    `console` is a text stream or a rich Console. `mode` "quiet" shows the final message alone. "normal" is a
    live table on a terminal and otherwise about forty lines at most, the first and the last row among them.
    "verbose" prints every row as a line of its own, on a terminal too. Raises `ValueError` for another mode.
    A stream that is full, closed or read by nobody is told once on standard error, and then left alone.
    """

    def __init__(self, console: TextIO | Console, mode: Mode = "normal") -> None:
        if mode not in ("quiet", "normal", "verbose"):
            raise ValueError(f"progress mode: expected quiet, normal or verbose, found {mode!r}")
        self.mode, self._target = mode, console
        self._stream = cast("TextIO", console if hasattr(console, "isatty") else console.file)
        self._live: Live | None = None
        self._ends: tuple[float | None, int | None]
        self._silent = False
        self._reset()

    def start(self, title: str, goal: float | None = None, most: int | None = None) -> None:
        """Begin a table, after ending one that is still open, and show its title line.

        Args:
            goal: the gradient, relative to the first one, with which the run ends; None where another measure ends it.
            most: the largest number of iterations. Both are for the estimate below a live table.
        """
        self._close_table()
        self._reset()
        self._ends = goal, most
        if self.mode != "quiet":
            self._write(title)

    def note(self, line: str) -> None:
        """Show a line between the title and the table; a table that has begun is ended, and another one may follow."""
        if self.mode != "quiet":
            if self._count:
                self._close_table()
                ends = self._ends
                self._reset()
                self._ends = ends
            self._write(line)

    def iteration(self, record: Mapping[str, object]) -> None:
        """Show one outer iteration.

        Keys: iteration, objective, gradient_norm, state_residual, adjoint_residual, solves, seconds; scenarios and
        coarse_scenarios where the first record has them. A value that is missing or None is shown as `-`; other keys
        are ignored.
        """
        if self.mode == "quiet" or self._silent:
            return
        position = self._count
        self._count += 1
        if position == 0:
            self._scenarios = "scenarios" in record
            self._live = self._start_live() if self.mode == "normal" else None
        line = format_row(record)
        if self._live is not None:
            self._show_live(self._live, line, record)
        else:
            self._print_row(position, line)

    def finish(self, message: str) -> None:
        """End the table, with its last row in sight, and show the message."""
        self._close_table()
        self._write(message)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._close_table()

    def _reset(self) -> None:
        self._count, self._scenarios, self._first, self._ended = 0, False, "", False
        self._ends = None, None
        self._outlook: Outlook | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._waiting: str | None = None  # the newest row, while it has been thinned out
        self._refreshed = -math.inf

    def _write(self, line: str) -> None:
        if self._silent:
            return

        def write() -> None:
            self._stream.write(line + "\n")
            self._stream.flush()

        self._attempted(write)

    def _attempted(self, show: Callable[[], None]) -> None:
        """Shows something; after a failure nothing any more: a table that cannot be written must not end a run."""
        try:
            show()
        except OSError as error:
            self._silent, self._live = True, None
            abandon(self._stream, error, "the run goes on without it")

    def _print_row(self, position: int, line: str) -> None:
        if position == 0:
            self._write(header(self._scenarios))
        if self.mode == "verbose" or is_shown(position):
            self._write(line)
            self._waiting = None
        else:
            self._waiting = line

    def _start_live(self) -> Live | None:
        from rich.console import Console
        from rich.live import Live

        console = self._target if isinstance(self._target, Console) else Console(file=self._stream)
        # FORCE_COLOR makes rich take any pipe for a terminal.
        if console is not self._target and not self._stream.isatty():
            return None
        if not console.is_terminal or console.is_dumb_terminal:
            return None
        # Refreshed by hand: a refresh thread and fork do not mix. Only streams that are terminals are
        # redirected, or output sent to a file would be drawn above the table instead.
        live = Live(
            console=console,
            auto_refresh=False,
            get_renderable=self._render,
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        self._attempted(live.start)
        return None if self._silent else live

    def _show_live(self, live: Live, line: str, record: Mapping[str, object]) -> None:
        if self._outlook is None:
            # Loaded for terminals alone.
            from .remaining_time import Outlook

            self._outlook = Outlook(*self._ends)
        self._outlook.add(record)
        if self._first:
            self._tail.append(line)
        else:
            self._first = line
        now = time.monotonic()
        if now - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = now
            self._attempted(live.refresh)

    def _render(self) -> Text:
        from rich.text import Text

        # Header, first row, dots and the cursor's line take four, an estimate one; a taller table could not be redrawn.
        estimate = "" if self._ended or self._outlook is None else self._outlook.line()
        height = self._live.console.height if self._live is not None else 24
        room = max(1, height - 4 - bool(estimate))
        tail = list(self._tail)[-room:]
        gap = ["  ..."] if self._count > len(tail) + 1 else []
        rows = [self._first] if self._first else []
        lines = [header(self._scenarios), *rows, *gap, *tail, *([estimate] if estimate else [])]
        return Text("\n".join(lines), no_wrap=True, overflow="crop")

    def _close_table(self) -> None:
        if self._live is not None:
            self._ended = True
            self._attempted(self._live.stop)
            self._live = None
        if self._waiting is not None:
            line, self._waiting = self._waiting, None
            self._write(line)


def is_shown(position: int) -> bool:
    """Whether a thinned table shows the row at `position` (0 is the first): 36 of 1001, then 3 a decade."""
    for end, stride in ((10, 1), (20, 2), (50, 5), (100, 10), (1000, 100)):
        if position <= end:
            return position % stride == 0
    leading = int(str(position)[0])
    return leading in (1, 2, 5) and position == leading * 10 ** (len(str(position)) - 1)


def header(scenarios: bool = False) -> str:
    """The heading line of the table."""
    line = "".join(f"{title:>{width}}" for title, _, width, _ in _COLUMNS)
    return f"{line}{'scenarios + coarse':>{_SCENARIOS}}" if scenarios else line


def numbers_line(controls: Mapping[str, Sequence[float]]) -> str:
    """Controls that are numbers as a line of text, those that vary in time left out."""
    short = {name: values for name, values in controls.items() if len(values) <= 3}
    texts = (f"{name} = {', '.join(f'{value:.9g}' for value in values)}" for name, values in short.items())
    return f"{'; '.join(texts)}\n" if short else ""


def format_row(record: Mapping[str, object]) -> str:
    """One line of the table, as wide as the heading whatever the values."""
    line = "".join(f"{_text(record.get(key), show):>{width}}" for _, key, width, show in _COLUMNS)
    if "scenarios" not in record:
        return line
    fine, coarse = (_text(record.get(key), lambda number: _compact(number, 6)) for key in _COUNTS)
    return f"{line}{f'{fine} + {coarse}' if record.get(_COUNTS[1]) else fine:>{_SCENARIOS}}"


def _text(value: object, show: Callable[[float], str]) -> str:
    if value is None:
        return "-"
    number = float(value)  # type: ignore[arg-type]  # numbers of numpy and torch have no common type
    return show(number) if math.isfinite(number) else str(number)


def _compact(number: float, room: int) -> str:
    text = f"{number:.0f}"
    digits = 3
    while len(text) > room and digits:
        digits -= 1
        mantissa, _, exponent = f"{number:.{digits}e}".partition("e")
        text = f"{mantissa}e{int(exponent)}"
    return text


def _error(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.0e}" if number else "0"


def _seconds(number: float) -> str:
    if number < 99.95:
        return f"{number:.1f} s"
    return f"{number:.0f} s" if number < 99_999.5 else f"{_compact(number / 3600, 4)} h"


# Heading, key in the record, width, format. Each format fits its width less a space between columns.
_COLUMNS: tuple[tuple[str, str, int, Callable[[float], str]], ...] = (
    ("iter", "iteration", 5, lambda number: _compact(number, 5)),
    ("objective", "objective", 13, lambda number: f"{number:.4e}"),
    ("|gradient|", "gradient_norm", 13, lambda number: f"{number:.1e}"),
    ("state err", "state_residual", 11, _error),
    ("adjoint err", "adjoint_residual", 13, _error),
    ("solves", "solves", 8, lambda number: _compact(number, 7)),
    ("time", "seconds", 8, _seconds),
)
# The keys of the numbers of scenarios on the mesh of the problem and on a coarser mesh, and the width of both.
_COUNTS = ("scenarios", "coarse_scenarios")
_SCENARIOS = 20
