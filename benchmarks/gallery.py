"""Pictures of all shipped problems for docs/gallery.md; needs the extra `plot`.

python -m benchmarks.gallery [NAME...]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nhgd_pde as nhgd

from .shipped import PROBLEMS

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
# The endings of the fields of single scenarios, and of probabilities.
_NAMED = ("_best", "_median", "_worst", "_exceedance")
HEAD = """# Gallery

Every shipped problem, solved with its defaults: state, control and target. Made by `python -m benchmarks.gallery`.
"""


def caption(path: Path) -> str:
    """The comment at the top of a problem file, without the line for editors."""
    lines = path.read_text(encoding="utf-8").splitlines()
    top = [line[1:].strip() for line in lines[1:] if line.startswith("#")]
    return re.sub(r"\s+", " ", " ".join(top)).split(". ")[0].rstrip(".") + "."


def draw(path: Path) -> str:
    """Solves a problem, saves its picture, and returns a sentence on the end of the run."""
    from PIL import Image

    from nhgd_pde.output.fields import FieldData, Grid
    from nhgd_pde.output.pictures import picture, pictured

    def shown(data: FieldData) -> list[str]:
        return [name for name in pictured(data) if not name.endswith(_NAMED)]

    solution = nhgd.solve(nhgd.load(path))
    if solution.problem.space.domain.dim == 3:
        grid, data = solution.fields()
        # The nodes in the middle plane of a grid are those of a plane grid.
        import scipy.spatial

        z = grid.points[:, 2]
        middle = abs(z - 0.5 * (z.min() + z.max())) < 1e-9
        plane = grid.points[middle, :2]
        cells = scipy.spatial.Delaunay(plane).simplices
        fields = FieldData({name: values[middle] for name, values in data.point.items()})
        figure = picture(Grid(plane, cells, "triangle"), fields, shown(fields), path.stem)
    elif solution.judgement is not None:
        grid, data = solution.fields()
        figure = picture(grid, data, shown(data), f"{path.stem}: {solution.status}")
    else:
        # An evolution is drawn at half of its time.
        figure = solution.plot(len(solution.times) // 2)
    PICTURES.mkdir(exist_ok=True)
    file = PICTURES / f"{path.stem}.png"
    figure.savefig(file, dpi=60)
    with Image.open(file) as image:
        smaller = image.convert("RGB").quantize(128)
    smaller.save(file, optimize=True)
    return (
        f"{solution.status} after {solution.stats['outer_iterations']} iterations, objective {solution.objective:.9e}"
    )


def main(names: list[str]) -> None:
    paths = PROBLEMS
    known = (
        dict(re.findall(r"## (\S+)\n(.*?)(?=\n## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL))
        if PAGE.exists()
        else {}
    )
    for path in paths:
        if not names or path.stem in names:
            ended = draw(path)
            print(f"{path.stem}: {ended}", flush=True)
            text = f"\n{caption(path)}\n\n![{path.stem}](gallery/{path.stem}.png)\n\n{ended[:1].upper()}{ended[1:]}.\n"
            known[path.stem] = text
    stems = {path.stem for path in paths}
    sections = [f"## {stem}\n{known[stem].rstrip()}\n" for stem in sorted(known) if stem in stems]
    PAGE.write_text("\n".join([HEAD, *sections]), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
