"""Conducts a study: checks everything, makes the runs that are not made yet, and writes table and picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ..problem_file.loading import ProblemFile
from .designs import Row, settings_to_check
from .drawings import load
from .findings import check_names, found_in
from .session import Session
from .study_file import StudyFile, read_study
from .study_folder import StudyFolder, opened_study
from .study_result import Study
from .study_spec import OptunaSpec
from .table_rows import names_of_terms
from .workers import Processes, ThisProcess, Workers


def study(
    source: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    processes: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    retry: bool = False,
    callback: Callable[[Row], object] = lambda row: None,
    interrupted: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] = lambda sentence: None,
) -> Study:
    """Make a study: many runs of one problem, each in a run folder of its own.

    Args:
        source: a study file, or the same content as a mapping, whose `problem` may be a mapping as well.
        overrides: settings of the problem for all runs, by dotted key, such as {"mesh.cells": [8, 8]}.
        output: the folder of the study; outputs/NAME by default.
        processes: number of processes that share the runs, in place of that of the file.
        scheduler: address HOST:PORT of a Dask cluster that makes the runs; its workers have one thread each, and share
            the file system.
        resume: go on with the study in `output`: runs that have ended are kept, others go on from their checkpoints.
        overwrite: replace the study in `output`.
        retry: with `resume`, runs that have failed are made again.
        callback: called with the row of every run that has ended, also of one that is kept.
        interrupted: asked all the time; true ends the runs that are being made, and the study.
        note: called with a sentence when there is something to know before the end.

    Returns:
        The study, with a row for every run. A run that fails is a row with its sentence.

    Raises:
        ProblemError: everything that is wrong with the study, and with the problem of any of its runs; or what it needs
            is not installed.
        OutputError: `output` holds something else, is in use, or cannot be written to.
    """
    file = read_study(source, overrides)
    count = file.spec.processes if processes is None else processes
    path = Path(output) if output is not None else Path("outputs") / file.spec.study
    if count < 1:
        raise file.error("processes", f"expected at least 1, found {count}")
    with closing(Processes(count, note)) as several:
        if count > 1 and scheduler is None and not resume:
            # They load what they need while this process checks the problems.
            several.start(min(count, len(settings_to_check(file))))
        problems = _checked(file, count, scheduler)
        if count > 1:
            # The first results are seconds away, and the picture at the end needs it.
            load()
        with (
            opened_study(path, resume, overwrite) as folder,
            closing(_workers(several, scheduler, interrupted)) as team,
        ):
            folder.write_study(file.dump())
            # The problems of proposals are not those that were checked.
            known = [] if isinstance(file.spec, OptunaSpec) else problems
            session = Session(file, folder, team, interrupted, callback, retry, known)
            session.make()
            return _ended(file, folder, session, names_of_terms(problems[0]), note)


def _ended(
    file: StudyFile, folder: StudyFolder, session: Session, terms: Sequence[str], note: Callable[[str], None]
) -> Study:
    """The study after its last run, with everything in its folder."""
    findings = found_in(file.spec, session.rows, terms)
    folder.keep(session.known, session.rows, findings)
    folder.write_parquet(session.rows)
    made = Study(file.spec.study, file.spec, tuple(session.rows), findings, folder.path)
    said = made.write_picture()
    if said:
        note(said)
    return made


def _checked(file: StudyFile, processes: int, scheduler: str | None) -> list[ProblemFile]:
    """The problems of all runs, or those that stand for them."""
    if isinstance(file.spec, OptunaSpec):
        from .proposals import optuna_module

        optuna_module()
    problems = file.checked(settings_to_check(file))
    check_names(file, problems[0])
    kept = sorted({key for each in problems for key in each.in_memory})
    if (processes > 1 or scheduler is not None) and kept:
        message = f"expected 1 where functions or meshes in memory are in the problem, found {', '.join(kept)}"
        raise file.error("processes", f"{message}: name them as file.py:name, or as mesh.file, to use several")
    return problems


def _workers(several: Processes, scheduler: str | None, interrupted: Callable[[], bool]) -> Workers:
    if scheduler is not None:
        from .dask_cluster import DaskWorkers

        return DaskWorkers(scheduler)
    return several if several.size > 1 else ThisProcess(interrupted)
