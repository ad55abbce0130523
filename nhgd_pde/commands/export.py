"""`nhgd-pde export`: the design of a run for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from ..complaints import bad_input


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--stl", is_flag=True, required=True, help="Write an STL file, for 3-D printers and CAD.")
@click.option("--threshold", type=float, default=0.5, show_default=True, help="Least density of the material.")
@click.option("--field", metavar="NAME", help="A field of final.vtu in place of the density.")
@click.option(
    "--thickness",
    type=click.FloatRange(min=0.0, min_open=True),
    help="Height to which a plane design is extruded; a tenth of its longer side by default.",
)
@click.option("--output", type=click.Path(path_type=Path), help="The file; FOLDER/density.stl by default.")
def export(
    folder: Path, stl: bool, threshold: float, field: str | None, thickness: float | None, output: Path | None
) -> None:
    """Write the material of the run in FOLDER, where the density is at least a threshold, as a closed surface."""
    with bad_input():
        from ..output.surface_export import export_surface

        click.echo(str(export_surface(folder, output, threshold, field, thickness)))
