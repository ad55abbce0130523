"""What to do with files that are no mesh, or no mesh that meshio reads, by the ends of their names.

To add a hint, add a line to the table `HINTS`. The tests of the table are in tests/test_hints.py.
"""

from __future__ import annotations

from pathlib import Path

_GMSH = "is {what}, not a mesh: make one with `gmsh -{dim} {name} -o {stem}.msh`{more} and name that file"
_SCRIPT = _GMSH.format(what="a geometry script of gmsh", dim=2, name="{name}", stem="{stem}", more=" (-3 for a solid)")
_SOLID = _GMSH.format(what="a geometry", dim=3, name="{name}", stem="{stem}", more=" (-2 for its surface)")
_SURFACE = (
    'holds the surface of a body: fill it with cells, in gmsh by a script with `Merge "{name}"; Surface Loop(1) = '
    "Surface{{:}}; Volume(1) = {{1}};` and `gmsh -3`, and name the .msh file that it writes"
)
_INDEX = "lists other files: name one of the .vtu files that it lists"

HINTS = {
    ".geo": _SCRIPT,
    ".geo_unrolled": _SCRIPT,
    ".step": _SOLID,
    ".stp": _SOLID,
    ".iges": _SOLID,
    ".igs": _SOLID,
    ".brep": _SOLID,
    ".stl": _SURFACE,
    ".obj": _SURFACE,
    ".off": _SURFACE,
    ".ply": _SURFACE,
    ".vtk": "may have a version of the old VTK format that meshio does not read: write it as {stem}.vtu, in ParaView "
    "with File > Save Data",
    ".pvd": _INDEX,
    ".pvtu": _INDEX,
    ".h5": "holds the numbers of an XDMF file: name the .xdmf file beside it",
    ".xml": "is read where it is a mesh of DOLFIN; `meshio convert {name} {stem}.vtu` says what is wrong with it",
    ".foam": "is a case of OpenFOAM: write its mesh with foamToVTK, and name the .vtu file",
    ".mph": "is a model of COMSOL: export its mesh as NASTRAN (.nas)",
    ".cas": "is a case of Fluent: export its mesh for gmsh or as CGNS (.cgns)",
    ".png": "is a picture, not a mesh",
}
"""End of a file's name -> what the file is and what to do, with the subject left out."""


def hint(path: Path) -> str | None:
    """What a file is and what to do, as text after its name; None where the end of its name tells nothing."""
    found = HINTS.get(path.suffix.lower())
    return None if found is None else found.format(name=path.name, stem=path.stem)
