"""`nhgd-pde posterior`: the posterior of a run that has ended."""

from __future__ import annotations

from pathlib import Path

import click

from ..complaints import bad_input


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--chain",
    type=click.IntRange(min=1),
    help="Check the posterior by a Markov chain of this many states; each takes a solve.",
)
def posterior(folder: Path, chain: int | None) -> None:
    """Compute the posterior of the run in FOLDER again and write it into its folder `posterior`.

    The problem file of the run has a section `inference`; `solve` does the same at its end.
    """
    with bad_input():
        from ..run.posterior_files import write_posterior

        for line in write_posterior(folder, chain):
            click.echo(line)
