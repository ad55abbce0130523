"""How the command line reports errors: a sentence on standard error, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

# Exit codes: 0 converged or completed, 1 ran but did not converge or failed, 2 bad input.
NOT_CONVERGED = 1
BAD_INPUT = 2


class Program(click.Group):
    """The group of commands. An error of the system, such as a full disk, is a sentence and not a traceback."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        from .output.streams import open_streams

        open_streams()
        with _refused():
            return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        with _refused():
            return super().invoke(context)


@contextmanager
def _refused() -> Iterator[None]:
    from .output.storage import refusal
    from .output.streams import abandon

    try:
        yield
    except OSError as error:
        # The system names the file, unless it was open already: then it is the one that commands print to.
        if error.filename is None and error.errno is not None:
            abandon(sys.stdout, error)
        else:
            text = str(error) if error.errno is None else str(refusal(error, error.filename, "used"))
            tell(text)
        sys.exit(NOT_CONVERGED)


@contextmanager
def bad_input() -> Iterator[None]:
    """Turns mistakes of the user into a message and exit code 2."""
    from .engine.roles.failures import RoleFailedError
    from .output.storage import OutputError
    from .problem_file.errors import ProblemError

    try:
        yield
    except (ProblemError, OutputError, RoleFailedError) as error:
        if not follows():
            tell(str(error))
        # mpirun ends all processes as soon as one has failed: those that help leave the failure to the first one.
        sys.exit(0 if _helps() else BAD_INPUT)


def follows() -> bool:
    """True on every rank but 0, which prints for all."""
    from os import environ

    return environ.get("RANK", "0") != "0" or _helps()


def _helps() -> bool:
    """True in every process of an MPI run but the first one."""
    from .run.mpi_processes import mpi_place

    return mpi_place()[0] > 0


def tell(line: str) -> None:
    """Prints a line on standard error, so that it is not lost among the rows of a table; nothing if that fails."""
    with suppress(OSError):
        click.echo(line, err=True)


def warn(sentence: str) -> None:
    """Prints a warning on standard error."""
    tell(f"warning: {sentence}")
