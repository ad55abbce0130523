"""A study that has been made: its rows, what was found, its table and its picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..output.atomic import write_atomically
from ..output.names import STUDY
from ..output.storage import OutputError
from .study_file import read_study
from .study_folder import PICTURE, is_study, read_rows
from .study_spec import StudySpec
from .table_rows import table_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """A study that has been made.

    Attributes:
        name: of the study.
        spec: its file.
        rows: a mapping a run, the rows of table.csv: `run`, its settings by dotted key, `status`, `objective`, the
            terms of the objective (`term_tracking`, and `unweighted_tracking` without its weight), `iterations`,
            `solves`, `seconds`, `folder`, `message` ...
        findings: what the kind of the study makes of its rows: orders and limits of a refinement, the points and the
            corner of an L-curve, the runs of a Pareto front, the best run.
        folder: where it is; the run folder of a row is `folder / row["folder"]`.
    """

    name: str
    spec: StudySpec
    rows: tuple[Mapping[str, Any], ...]
    findings: Mapping[str, Any]
    folder: Path

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """The study in a folder.

        Raises:
            OutputError: there is none, or its files are damaged.
        """
        path = Path(folder)
        if not is_study(path):
            raise OutputError(f"{path}: expected the folder of a study, found no {STUDY} of one in it")
        try:
            spec = read_study(path / STUDY).spec
        except ValueError as error:
            raise OutputError(f"{path / STUDY}: the file is damaged ({error})") from error
        content = read_rows(path)
        return cls(spec.study, spec, tuple(content["rows"]), content["findings"], path)

    @property
    def complete(self) -> bool:
        """Every run has ended with an answer."""
        return bool(self.rows) and all(row["status"] in ("converged", "stopped") for row in self.rows)

    @property
    def counts(self) -> dict[str, int]:
        """The number of runs of each status."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row["status"]] = found.get(row["status"], 0) + 1
        return found

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        return f"Study({self.name}: {self.spec.kind}, {len(self.rows)} runs, {counts})"

    def table(self) -> str:
        """The table, and what was found, as text."""
        return "\n".join([table_text(self.rows), *self.findings.get("sentences", ())])

    def plot(self) -> Figure:
        """The picture of the kind: convergence, L-curve, Pareto front, or the objective over what was varied.

        Raises:
            ValueError: no run has ended with an answer, or the kind has too few of them.
        """
        from .drawings import drawn

        return drawn(self.spec, self.rows, self.findings)

    def write_picture(self) -> str:
        """Draws the picture into figure.png of the folder; returns a sentence on why there is none, or nothing."""
        try:
            figure = self.plot()
        except ImportError:
            return "no picture: matplotlib is not installed (pip install 'nhgd-pde[plot]')"
        except ValueError as error:
            return f"no picture: {error}"
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=120)
        write_atomically(self.folder / PICTURE, content.getvalue())
        return ""
