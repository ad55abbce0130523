"""The command line: the group of all commands, which are in `commands/`."""

from __future__ import annotations

from importlib import import_module
from typing import cast

import click

from .complaints import Program
from .run.environment import wait_without_work

# The file of each command in `commands/`, and its function there. A file is imported when its command is used.
COMMANDS = {
    "solve": "solve:solve",
    "check": "check:check",
    "verify": "verify:verify",
    "plot": "plot:plot",
    "report": "report_command:report",
    "posterior": "posterior_command:posterior",
    "export": "export:export",
    "study": "study:study",
    "bench": "bench:bench",
    "new": "language:new",
    "list": "language:list_",
    "schema": "language:schema",
}


class Commands(Program):
    """The group of all commands."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, function = COMMANDS[name].partition(":")
        return cast(click.Command, getattr(import_module(f".commands.{module}", __package__), function))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nhgd-pde")
def main() -> None:
    """PDE-constrained optimisation and inverse design by natural hypergradient descent.

    A problem is a YAML file; its result is a folder that ParaView opens.
    """
    wait_without_work()
