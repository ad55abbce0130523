"""`nhgd-pde schema`, `list` and `new`: the language of problem files."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from ..complaints import bad_input


@click.command()
@click.option("--install", is_flag=True, help="Write the schema and the editor's setting into .vscode instead.")
@click.option(
    "--files", multiple=True, metavar="PATTERN", help="With --install: problem files; /*.yaml, /problems/*.yaml."
)
@click.option("--markdown", is_flag=True, help="Print the reference of all keys as a page instead.")
def schema(install: bool, files: tuple[str, ...], markdown: bool) -> None:
    """Print the JSON schema of problem files, with which editors complete and check them."""
    if markdown and install:
        raise click.UsageError("expected one of --install and --markdown, found both")
    if files and not install:
        raise click.UsageError("--files belongs to --install")
    if markdown:
        from ..problem_file.reference import reference

        click.echo(reference(), nl=False)
        return
    from ..problem_file.json_schema import json_schema_text

    if not install:
        click.echo(json_schema_text(), nl=False)
        return
    with bad_input():
        from ..output.editor_settings import SCHEMA
        from ..output.editor_settings import install as write

        patterns = files or ("/*.yaml", "/problems/*.yaml")
        path = write(Path(), json_schema_text(), patterns)
        click.echo(f"{path}, {SCHEMA}: Visual Studio Code checks {', '.join(patterns)} (extension redhat.vscode-yaml)")


@click.command(name="list")
def list_() -> None:
    """List meshes, equations, controls, objective terms, methods and linear solvers."""
    from ..choice.vocabulary import vocabulary

    for title, entries in vocabulary().items():
        click.echo(f"{title}:")
        width = max(len(name) for name in entries)
        for name, text in entries.items():
            click.echo(f"  {name:<{width}}  {text}")


@click.command()
@click.argument("kind")
@click.option("--output", type=click.Path(path_type=Path), help="The file to write; KIND.yaml by default.")
def new(kind: str, output: Path | None) -> None:
    """Write a commented starter file of KIND.

    KIND is an equation (see `nhgd-pde list`), or topology, inversion, time_control, uncertainty or python.
    """
    from ..problem_file.starter import starter_files

    path = output or Path(f"{kind}.yaml")
    try:
        texts = starter_files(kind, path.stem)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    paths = [path, *(path.with_name(name) for name in list(texts)[1:])]
    if len(set(paths)) < len(paths):
        raise click.UsageError(f"{path} is the name of a file beside the problem file; end it with .yaml")
    for each in paths:
        if each.exists():
            raise click.UsageError(f"{each} exists already; name another file with --output")
    with bad_input():
        from ..output.atomic import write_atomically

        for each, text in zip(paths, texts.values(), strict=True):
            write_atomically(each, text)
    click.echo(f"{', '.join(map(str, paths))}: edit, then {shlex.join(['nhgd-pde', 'solve', str(path)])}")
