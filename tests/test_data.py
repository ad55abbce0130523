"""Data in: parts of the mesh by coordinates, fields from files, arrays and functions, measurements over time."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from PIL import Image

import nhgd_pde as nhgd
from benchmarks.heat_inversion_data import TRUTH
from benchmarks.image_target_data import FORMULA, picture
from nhgd_pde.building.data_fields import DataFields, data_fields
from nhgd_pde.linalg.products import row_wise_kronecker
from nhgd_pde.problem_file.errors import ProblemError

ROOT = Path(__file__).parents[1]
SQUARE: dict[str, Any] = {
    "name": "square",
    "mesh": {"kind": "rectangle", "cells": [12, 12]},
    "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
    "control": {"kind": "source"},
    "objective": [
        {"kind": "tracking", "target": "x*(1 - x)*y*(1 - y)"},
        {"kind": "regularisation", "norm": "l2", "weight": 1e-4},
    ],
}
MESHES: dict[str, dict[str, Any]] = {
    "interval": {"kind": "interval", "cells": 7},
    "triangles": {"kind": "rectangle", "cells": [5, 4]},
    "quadrilaterals": {"kind": "rectangle", "cells": [5, 4], "cell": "quadrilateral"},
    "tetrahedra": {"kind": "box", "cells": [3, 2, 2]},
    "hexahedra": {"kind": "box", "cells": [3, 2, 2], "cell": "hexahedron"},
}


def square(**sections: Any) -> dict[str, Any]:
    return copy.deepcopy(SQUARE) | sections


def fields(data: dict[str, Any], **sections: Any) -> DataFields:
    problem = nhgd.load(square(data=data, **sections))
    return data_fields(problem.file, problem.pde.space.domain)


def complaints(**sections: Any) -> dict[str, str]:
    with pytest.raises(ProblemError) as caught:
        nhgd.load(square(**sections))
    return {issue.key: issue.message for issue in caught.value.issues}


def some_points(dim: int, count: int = 50) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.0, 1.0, (dim, count))


# Parts


def test_a_part_is_a_boundary_and_a_subdomain_wherever_a_name_is() -> None:
    problem = nhgd.load(
        square(
            parts={"inlet": "x < 1e-9 and y > 0.5", "core": {"cells": "abs(x - 0.5) < 0.25 and abs(y - 0.5) < 0.25"}},
            pde={
                "kind": "poisson",
                "conductivity": {"core": 10, "default": 1},
                "boundary": {"inlet": {"dirichlet": 1}},
            },
            control={"kind": "source", "on": "core"},
            objective=[{"kind": "tracking", "target": 0, "on": "core"}, SQUARE["objective"][1]],
        )
    )
    domain = problem.pde.space.domain
    middles = domain.mesh.p[:, domain.mesh.facets[:, domain.boundaries["inlet"]]].mean(axis=1)
    assert len(domain.boundaries["inlet"]) == 6 and (middles[0] == 0.0).all() and (middles[1] > 0.5).all()
    assert len(domain.subdomains["core"]) == 2 * 36 and "inlet" not in domain.subdomains
    solution = nhgd.solve(problem)
    assert solution.integrate("1", on="inlet") == pytest.approx(0.5, rel=1e-12)
    assert solution.integrate("1", on="core") == pytest.approx(0.25, rel=1e-12)
    assert solution.evaluate([[0.0, 0.75]])[0] == pytest.approx(1.0)


def test_parts_give_the_answer_of_an_expression() -> None:
    """A subdomain whose edge follows facets is the same as a conductivity that jumps there."""
    core = "abs(x - 0.5) < 0.25 and abs(y - 0.5) < 0.25"
    named = square(parts={"core": {"cells": core}})
    named["pde"]["conductivity"] = {"core": 10, "default": 1}
    written = square()
    written["pde"]["conductivity"] = f"where({core}, 10, 1)"
    assert nhgd.solve(nhgd.load(named)).objective == nhgd.solve(nhgd.load(written)).objective


def test_parts_follow_refinement_and_are_written_to_the_run_folder(tmp_path: Path) -> None:
    content = square(parts={"core": "x < 0.5"}, mesh={"kind": "rectangle", "cells": [4, 4], "refine": 1})
    problem = nhgd.load(content)
    assert len(problem.pde.space.domain.subdomains["core"]) == 64
    assert len(problem.pde.space.domain.boundaries["core"]) == 16
    (tmp_path / "problem.yaml").write_text(problem.yaml())
    assert nhgd.load(tmp_path / "problem.yaml").file.spec == problem.file.spec


@pytest.mark.parametrize(
    ("parts", "key", "message"),
    [
        ({"a": "x < -1"}, "parts.a", "expected facets of the boundary or cells at whose midpoints 'x < -1' holds"),
        ({"a": {"boundary": "x > 2"}}, "parts.a", "expected facets of the boundary at whose midpoints 'x > 2' holds"),
        ({"left": "x < 0.1"}, "parts.left", "the name is taken: it is a part of the boundary, of 12 facets"),
        ({"default": "x < 0.1"}, "parts.default", "the name is taken: it means something else"),
        ({"a": "z < 1"}, "parts.a", "'z' has no value in 2-D"),
        (
            {"a": {"boundary": "1/x"}},
            "parts.a.boundary",
            "expected a condition that is 0 or 1 everywhere, found 1/x, not finite",
        ),
        (
            {"a": {"cells": "2*x"}},
            "parts.a.cells",
            "found 2*x, 0.0555556 at (0.0277778, 0.0555556); compare, as in 'x < 0.5', and combine conditions by",
        ),
        ({" ": "x < 0.1"}, "parts. ", "expected a name, found none"),
        ({"a": "x <"}, "parts.a", "not an arithmetic expression"),
        ({"a": {}}, "parts.a", "expected a condition such as 'x < 0.1 and y > 0.4'"),
        ({"a": {"cels": "x < 1"}}, "parts.a.cels", "unknown key (did you mean 'cells'?)"),
        ({"a": {"cells": "k < 1"}}, "parts.a.cells", "unknown name 'k'"),
    ],
)
def test_parts_that_are_none_are_refused(parts: dict[str, Any], key: str, message: str) -> None:
    assert message in complaints(parts=parts)[key]


def test_a_part_with_a_mistake_is_not_unknown_where_it_is_used() -> None:
    used = {"kind": "source", "on": "a"}
    assert complaints(parts={"a": "x <"}, control=used).keys() == {"parts.a"}
    assert complaints(parts={"a": {"boundary": "x < 0.1", "cells": "x <"}}, control=used).keys() == {"parts.a.cells"}
    assert complaints(parts={"a": "x <"}, control={"kind": "source", "on": "b"}).keys() == {"parts.a", "control.on"}


def test_conditions_on_parameters_and_data_are_refused() -> None:
    found = complaints(
        parts={"a": {"cells": "k < 1"}, "b": {"cells": "d < 1"}},
        data={"d": {"points": [[0, 0]], "values": [1], "method": "nearest"}},
        control=[{"kind": "parameter", "name": "k", "initial": 1}, {"kind": "source"}],
    )
    assert found["parts.a.cells"] == "expected a condition on the coordinates alone, found 'k'"
    assert found["parts.b.cells"] == "expected a condition on the coordinates alone, found 'd'"


# Data


def affine(x: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 + np.arange(1, len(x) + 1) @ x)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_scattered_points_give_affine_functions_exactly(dim: int, tmp_path: Path) -> None:
    corners = np.stack([axis.reshape(-1) for axis in np.meshgrid(*[[0.0, 1.0]] * dim)])
    points = np.concatenate([corners, some_points(dim)], axis=1)
    np.savez(tmp_path / "a.npz", points=points.T, values=affine(points))
    header = ",".join([*["x", "y", "z"][:dim], "other", "wanted"])
    table = np.column_stack([points.T, 0.0 * affine(points), affine(points)])
    np.savetxt(tmp_path / "a.csv", table, delimiter=",", header=header, comments="", fmt="%.17g")
    found = fields(
        {
            "archive": {"file": str(tmp_path / "a.npz")},
            "table": {"file": str(tmp_path / "a.csv"), "field": "wanted"},
            "lists": {"points": points.T.tolist(), "values": affine(points).tolist()},
            "arrays": {"points": points.T, "values": affine(points)},
            "nearest": {"points": points.T, "values": affine(points), "method": "nearest"},
        },
        mesh=MESHES[{1: "interval", 2: "triangles", 3: "tetrahedra"}[dim]],
        objective=[{"kind": "tracking", "target": 0}],
    )
    x = np.random.default_rng(2).uniform(0.0, 1.0, (dim, 30))
    for name in ("archive", "table", "lists", "arrays"):
        assert np.allclose(found.at([name], x)[name], affine(x), rtol=0.0, atol=1e-12), name
    distances = np.linalg.norm(points[:, :, None] - x[:, None], axis=0)
    wanted = affine(points[:, distances.argmin(axis=0)])
    assert np.allclose(found.at(["nearest"], x)["nearest"], wanted, rtol=0.0, atol=1e-12)
    # Outside of the points the value is that of the nearest one.
    assert found.at(["archive"], corners * 2.0 - 0.5)["archive"] == pytest.approx(affine(corners))


def test_an_image_stands_upright_and_its_values_are_those_of_the_middle_of_its_pixels(tmp_path: Path) -> None:
    pixels = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(np.repeat(pixels[..., None], 3, axis=2)).save(tmp_path / "colour.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    box = [[0.25, 0.5], [0.75, 0.875]]
    names = ("a", "colour", "deep")
    found = fields({name: {"file": str(tmp_path / f"{name}.png"), "box": box} for name in names})
    columns, rows = np.meshgrid(np.arange(8), np.arange(6))
    x = np.stack([0.25 + (columns + 0.5) / 8 * 0.5, 0.875 - (rows + 0.5) / 6 * 0.375])
    for name in names:
        assert np.allclose(found.at([name], x)[name], pixels / 255.0, rtol=0.0, atol=1e-12), name
    # Outside, the edge goes on.
    assert found.at(["a"], np.array([[0.0], [1.0]]))["a"] == pytest.approx(pixels[0, 0] / 255.0)


@pytest.mark.parametrize(("size", "corner"), [(1e-9, 0.0), (1e9, -1e9)])
def test_images_and_parts_do_not_depend_on_the_unit_of_length(size: float, corner: float, tmp_path: Path) -> None:
    Image.fromarray(np.array([[255, 0], [0, 0]], dtype=np.uint8)).save(tmp_path / "a.png")
    quarter = f"x < {corner} + {0.5 * size} and y > {corner} + {0.5 * size}"
    content = square(
        mesh={"kind": "rectangle", "cells": [4, 4], "size": size, "origin": [corner, corner]},
        objective=[
            {"kind": "tracking", "target": 0, "weight": size**-2},
            {"kind": "regularisation", "weight": 1e-2 * size**2},
        ],
        data={"d": {"file": str(tmp_path / "a.png"), "method": "nearest"}},
        parts={"quarter": {"cells": quarter}},
    )
    values = []
    for conductivity in ("1 + 9*d", {"quarter": 10, "default": 1}, f"1 + 9*({quarter})"):
        pde = {"kind": "poisson", "source": size**-2, "boundary": {"left": {"dirichlet": 0}}}
        values.append(nhgd.solve(nhgd.load(content | {"pde": {**pde, "conductivity": conductivity}})).objective)
    assert values == pytest.approx([values[0]] * 3, rel=1e-12)
    assert nhgd.solve(nhgd.load(content | {"pde": pde})).objective != pytest.approx(values[0], rel=1e-2)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_an_array_has_its_axes_in_the_order_of_the_coordinates(dim: int, tmp_path: Path) -> None:
    grid = np.stack(np.meshgrid(*(np.linspace(0.0, 1.0, 3 + k) for k in range(dim)), indexing="ij"))
    np.save(tmp_path / "a.npy", affine(grid.reshape(dim, -1)).reshape(grid.shape[1:]))
    mesh = MESHES[{1: "interval", 2: "triangles", 3: "tetrahedra"}[dim]]
    found = fields({"a": {"file": str(tmp_path / "a.npy")}}, mesh=mesh, objective=[{"kind": "tracking", "target": 0}])
    assert np.allclose(found.at(["a"], some_points(dim))["a"], affine(some_points(dim)), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize("mesh", MESHES)
def test_fields_of_a_run_come_back(mesh: str, element: str, tmp_path: Path) -> None:
    """The control of a run is where the next one starts, and its state is read exactly at the nodes."""
    dim = {"interval": 1, "tetrahedra": 3, "hexahedra": 3}.get(mesh, 2)
    target = "*".join(f"{axis}*(1 - {axis})" for axis in "xyz"[:dim])
    content = square(mesh=MESHES[mesh], element=element)
    content["objective"][0]["target"] = target
    first = nhgd.solve(nhgd.load(content), output=tmp_path / "run")
    file = str(tmp_path / "run" / "final.vtu")
    data = {"before": {"file": file, "field": "control"}, "old": {"file": file, "field": "state"}}
    again = nhgd.load(content | {"data": data, "control": {"kind": "source", "initial": "before"}})
    assert np.allclose(
        again.pde.control.start.numpy(), first.control, rtol=0.0, atol=1e-13 * np.abs(first.control).max()
    )
    nodes = again.pde.space.parts[0].nodes
    if not (mesh == "hexahedra" and element == "P2"):
        values = data_fields(again.file, again.pde.space.domain).at(["old"], nodes)["old"]
        assert np.allclose(values, first.state[0], rtol=0.0, atol=1e-13 * np.abs(first.state).max())


def test_values_of_cells_and_components_of_vectors_come_back(tmp_path: Path) -> None:
    content = square(control={"kind": "source", "space": "P0"})
    first = nhgd.solve(nhgd.load(content), output=tmp_path / "run")
    data = {"before": {"file": str(tmp_path / "run" / "final.vtu"), "field": "control"}}
    again = nhgd.load(content | {"data": data, "control": {"kind": "source", "space": "P0", "initial": "before"}})
    assert np.array_equal(again.pde.control.start.numpy(), first.control)
    elastic = ROOT / "problems" / "elastic_control.yaml"
    found = nhgd.solve(nhgd.load(elastic, {"mesh.cells": [8, 2]}), output=tmp_path / "elastic")
    name = next(each for each in found.fields()[1].point if each in ("state", "displacement"))
    file = str(tmp_path / "elastic" / "final.vtu")
    vector = {"side": {"file": file, "field": f"{name}_x"}, "up": {"file": file, "field": f"{name}_y"}}
    problem = nhgd.load(elastic, {"mesh.cells": [8, 2], "data": vector})
    nodes = problem.pde.space.parts[0].nodes
    values = data_fields(problem.file, problem.pde.space.domain).at(["side", "up"], nodes)
    assert np.array_equal(np.concatenate([values["side"], values["up"]]), found.state[0])


def test_a_field_of_another_mesh_is_interpolated_with_order_two(tmp_path: Path) -> None:
    errors = []
    for cells in (8, 16, 32):
        content = square(mesh={"kind": "rectangle", "cells": [cells, cells]})
        content["objective"][0]["target"] = "sin(pi*x)*sin(pi*y)"
        nhgd.solve(nhgd.load(content, {"outer.iterations": 1}), output=tmp_path / str(cells))
        found = fields({"d": {"file": str(tmp_path / str(cells) / "final.vtu"), "field": "target"}})
        x = some_points(2, 400)
        errors.append(np.abs(found.at(["d"], x)["d"] - np.sin(np.pi * x[0]) * np.sin(np.pi * x[1])).max())
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert (orders > 1.7).all(), orders


def test_functions_of_python_from_memory_and_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def wave(x):\n    return x[0]**2 + x[1]\n")
    found = fields({"a": {"python": lambda x: x[0] ** 2 + x[1]}, "b": {"python": f"{tmp_path / 'mine.py'}:wave"}})
    x = some_points(2)
    values = found.at(["a", "b"], x)
    assert np.array_equal(values["a"], values["b"]) and np.array_equal(values["a"], x[0] ** 2 + x[1])


def test_functions_in_memory_are_refused_where_other_processes_would_need_them() -> None:
    content = square(mesh={"kind": "rectangle", "cells": [4, 4]}, data={"d": {"python": lambda x: x[0]}})
    population = {"members": 2, "generations": 1, "processes": 2}
    search = {"method": "hpm", "control": {"kind": "source", "bounds": [-1, 1]}, "population": population}
    for roles, more in ((2, {}), (1, search)):
        with pytest.raises(
            ProblemError, match=r"data\.d\.python: expected file\.py:name in a run of several processes"
        ):
            nhgd.solve(nhgd.load(content | more), roles=roles)


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("pde.source", "d"),
        ("pde.conductivity", "1 + d"),
        ("pde.reaction", "d"),
        ("pde.boundary.all.dirichlet", "d"),
        ("objective.0.target", "d"),
        ("control.bounds", ["-d", "d"]),
        ("control.gain", "1 + d"),
        ("objective.1.reference", "d"),
    ],
)
def test_data_are_the_same_as_the_expression_they_stand_for(place: str, value: Any, element: str) -> None:
    """Every place of an expression takes data: the answer is that of the formula that the data are made of."""
    formula = "(0.5 + x*y)"
    written = [each.replace("d", formula) for each in value] if isinstance(value, list) else value.replace("d", formula)
    content = square(element=element, mesh={"kind": "rectangle", "cells": [6, 6]})
    data = {"d": {"python": lambda x: 0.5 + x[0] * x[1]}}
    one = nhgd.solve(nhgd.load(content | {"data": data}, {place: value}))
    other = nhgd.solve(nhgd.load(content, {place: written}))
    assert one.objective == pytest.approx(other.objective, rel=1e-12)
    assert np.allclose(one.control, other.control, rtol=0.0, atol=1e-9 * np.abs(other.control).max())


def test_data_beside_parameters_random_inputs_and_time() -> None:
    """Data stand in one expression with everything else, and the derivatives are right."""
    data = {"d": {"python": lambda x: 1.0 + x[0]}}
    content = square(
        data=data,
        mesh={"kind": "rectangle", "cells": [5, 5]},
        control=[{"kind": "parameter", "name": "k", "initial": 2, "bounds": [1, 3]}, {"kind": "source"}],
        pde={
            "kind": "heat",
            "conductivity": "k*d + t*d",
            "source": "k*d*t",
            "boundary": {"all": {"dirichlet": "0.1*k*d"}},
        },
        time={"end": 1, "steps": 4},
    )
    problem = nhgd.load(content)
    assert nhgd.verify(problem).passed
    written = copy.deepcopy({key: each for key, each in content.items() if key != "data"})
    written["pde"] = {
        "kind": "heat",
        "conductivity": "k*(1 + x) + t*(1 + x)",
        "source": "k*(1 + x)*t",
        "boundary": {"all": {"dirichlet": "0.1*k*(1 + x)"}},
    }
    assert nhgd.solve(problem).objective == pytest.approx(nhgd.solve(nhgd.load(written)).objective, rel=1e-10)
    random = square(
        data=data,
        mesh={"kind": "rectangle", "cells": [5, 5]},
        parameters={"z": {"uniform": [1, 2]}},
        scenarios={"count": 4, "validation": 0},
    )
    random["pde"]["conductivity"] = "z*d"
    formula = copy.deepcopy({key: each for key, each in random.items() if key != "data"})
    formula["pde"]["conductivity"] = "z*(1 + x)"
    one, other = nhgd.solve(nhgd.load(random)), nhgd.solve(nhgd.load(formula))
    assert one.objective == pytest.approx(other.objective, rel=1e-10)


def test_data_in_nonlinear_and_convective_equations() -> None:
    data = {"d": {"python": lambda x: 1.0 + x[0]}}
    pairs = [
        ({"kind": "semilinear", "nonlinearity": "d*u**3"}, "nonlinearity", "(1 + x)*u**3"),
        (
            {"kind": "advection_diffusion", "conductivity": 0.01, "velocity": ["d", 0]},
            "velocity",
            ["1 + x", 0],
        ),
    ]
    for pde, key, value in pairs:
        content = square(mesh={"kind": "rectangle", "cells": [6, 6]})
        content["pde"] = {**pde, "boundary": {"all": {"dirichlet": 0}}}
        one = nhgd.solve(nhgd.load(content | {"data": data}))
        other = nhgd.solve(nhgd.load(content, {f"pde.{key}": value}))
        assert one.objective == pytest.approx(other.objective, rel=1e-10)


def test_the_run_folder_names_the_data_and_a_changed_file_is_noticed(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "d.csv", [[0, 0, 1], [1, 0, 2], [0, 1, 3]], delimiter=",")
    content = square(
        data={"d": {"file": str(tmp_path / "d.csv")}, "p": {"points": [[0, 0]], "values": [2.0], "method": "nearest"}}
    )
    content["objective"][0]["target"] = "d + p"
    problem = nhgd.load(content)
    nhgd.solve(problem, output=tmp_path / "run")
    written = nhgd.load(tmp_path / "run" / "problem.yaml").file.spec
    assert written.files is not None and written.model_copy(update={"files": None}) == problem.file.spec
    assert nhgd.solve(problem, output=tmp_path / "run", resume=True).status == "converged"
    np.savetxt(tmp_path / "d.csv", [[0, 0, 1], [1, 0, 2], [0, 1, 4]], delimiter=",")
    with pytest.raises(nhgd.OutputError, match=r"data\.d\.file"):
        nhgd.solve(nhgd.load(content), output=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("data", "key", "message"),
    [
        ({"file": "nothing.csv"}, "file", "expected a file, found nothing at 'nothing.csv'"),
        (
            {"points": [[0, 0], [1, 1]], "values": [1, 2]},
            "method",
            "that takes 3 points or more that are not on one line",
        ),
        ({"points": [[0, 0]], "values": [1, 2]}, "values", "expected one value for each of 1 points, found (2,)"),
        ({"points": np.zeros((3, 3)), "values": [1, 2, 3]}, "points", "expected an array (count, 2) on this mesh"),
        ({"points": [[0, 0], [0, 0]], "values": [1, 2]}, "points", "expected one value at a point, found several at"),
        ({"points": [[0, 0]], "values": [np.nan]}, "values", "expected finite numbers, found nan"),
        ({"points": [[0, "a"]], "values": [1]}, "points", "expected a list of lists of coordinates"),
        ({"points": [[0, 0], [1]], "values": [1, 2]}, "points", "expected a list of lists of coordinates"),
        ({"points": np.zeros((15000, 2)), "values": [1]}, "points", "expected at most 5,000 numbers, found 30,000"),
        ({"python": lambda x: 1 / 0}, "python", "the function raised ZeroDivisionError"),
        ({"python": lambda x: np.zeros(3)}, "python", "expected values of shape"),
        ({"python": lambda x: 1j * x[0]}, "python", "expected real numbers, found an array of the type complex128"),
        ({"python": lambda x: None}, "python", "expected real numbers, found an array of the type object"),
        ({"python": lambda x: sys.exit(3)}, "python", "the function raised SystemExit: 3"),
        ({"fil": "a"}, "", "expected a mapping with file: ... or points: ... or python: ..."),
    ],
)
def test_wrong_data_are_refused(data: dict[str, Any], key: str, message: str) -> None:
    objective = [{"kind": "tracking", "target": "d"}, SQUARE["objective"][1]]
    assert message in complaints(data={"d": data}, objective=objective)[f"data.d.{key}".rstrip(".")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "expected rows of numbers, found none"),
        ("nan.csv", b"x,y,v\n0,0,nan\n", "line 2: expected finite numbers"),
        ("narrow.csv", b"0,0\n", "expected columns x, y and values, found 2 columns"),
        ("names.csv", b"lon,lat,v\n0,0,1\n", "expected columns x, y and values, found lon, lat, v"),
        ("binary.csv", b"\xff\xfe\x00", "cannot be read as text"),
        ("wrong.png", b"PNG", "cannot be read as an image"),
        ("wrong.npz", b"PK", "expected an archive of arrays of numbers"),
        ("wrong.npy", b"", "expected an array of numbers"),
        ("empty.npz", b"", "expected an archive of arrays of numbers"),
        ("wrong.vtu", b"<x/>", "cannot be read by meshio"),
        ("comma.csv", b"x;y;v\n0,5;0;1\n", "line 2: expected numbers, found '0,5, 0, 1' (the decimal mark is a point)"),
        ("tab.csv", b"0,5\t0\t1\n", "line 1: expected numbers, found '0, 5\\t0\\t1' (the decimal mark is a point)"),
        ("long.csv", b"0,0,1_0\n", "line 1: expected numbers, found '0, 0, 1_0'"),
    ],
)
def test_files_that_are_not_data_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in complaints(data={"d": {"file": str(tmp_path / name)}})["data.d.file"]


@pytest.mark.parametrize(
    "text",
    [
        "x;y;v\n0;0;1\n1;0;2\n0;1;3\n",
        '"x","y","temperature (K)"\n0,0,1\n1,0,2\n0,1,3\n',
        "\ufeffx, y, T [\u00b0C]\r\n0, 0, 1\r\n1, 0, 2\r\n0, 1, 3\r\n",
        "x\ty\tv\n0\t0\t1\n1\t0\t2\n0\t1\t3\n",
    ],
)
def test_tables_of_spreadsheets_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "with space \u00fc.csv").write_bytes(text.encode())
    found = fields({"d": {"file": str(tmp_path / "with space \u00fc.csv")}})
    assert found.at(["d"], np.array([[0.25], [0.5]]))["d"] == pytest.approx(1.0 + 0.25 + 2.0 * 0.5)


def test_turned_and_transparent_images_are_what_a_viewer_shows(tmp_path: Path) -> None:
    pixels = np.array([[255, 128], [0, 64]], dtype=np.uint8)
    turned, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6  # To be shown turned by a right angle clockwise.
    turned.save(tmp_path / "turned.png", exif=exif)
    clear = Image.fromarray(pixels).convert("RGBA")
    clear.putalpha(Image.fromarray(np.array([[255, 255], [0, 255]], dtype=np.uint8)))
    clear.save(tmp_path / "clear.png")
    Image.fromarray(pixels.astype(np.float32)).save(tmp_path / "numbers.tif")
    names = ("turned.png", "clear.png", "numbers.tif")
    found = fields({name[:-4]: {"file": str(tmp_path / name), "method": "nearest"} for name in names})
    # Upper left, upper right, lower left, lower right.
    x = np.array([[0.25, 0.75, 0.25, 0.75], [0.75, 0.75, 0.25, 0.25]])
    assert (255.0 * found.at(["turned"], x)["turned"]).round().tolist() == [0, 255, 64, 128]
    assert (255.0 * found.at(["clear"], x)["clear"]).round().tolist() == [255, 128, 255, 64]
    assert found.at(["numbers"], x)["numbers"].tolist() == [255, 128, 0, 64]
    Image.fromarray(-pixels.astype(np.int32)).save(tmp_path / "negative.tif")
    message = complaints(data={"d": {"file": str(tmp_path / "negative.tif")}})["data.d.file"]
    assert message == "expected an image with numbers from 0 to 65535, found numbers from -255 to 0"


FLAT = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.0]])
HALVES = [("triangle", np.array([[0, 1, 2], [1, 3, 2]]))]
RISE = {"v": np.arange(4.0)}


@pytest.mark.parametrize(
    ("mesh", "method", "wanted"),
    [
        (meshio.Mesh(FLAT, HALVES, RISE), "linear", 0.25 + 2 * 0.5),
        (meshio.Mesh(FLAT, HALVES, RISE), "nearest", 2.0),
        (meshio.Mesh(FLAT[:, [0, 2, 1]], HALVES, RISE), "linear", 0.25 + 2 * 0.5),
        (meshio.Mesh(FLAT, HALVES, {"v": RISE["v"][:, None]}), "linear", 0.25 + 2 * 0.5),
        # A cell without an area, and a node of no cell.
        (
            meshio.Mesh(
                np.concatenate([FLAT, [[np.nan] * 3]]),
                [("triangle", np.array([[0, 1, 2], [1, 1, 2], [1, 3, 2]]))],
                {"v": np.append(RISE["v"], np.nan)},
            ),
            "linear",
            0.25 + 2 * 0.5,
        ),
        (
            meshio.Mesh(
                np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]]),
                [("quad8", np.arange(8)[None])],
                {"v": np.array([0, 1, 3, 2, 0.5, 2, 2.5, 1])},
            ),
            "linear",
            0.25 + 2 * 0.5,
        ),
    ],
)
def test_values_on_meshes_of_other_programs(mesh: meshio.Mesh, method: str, wanted: float, tmp_path: Path) -> None:
    mesh.write(tmp_path / "a.vtu")
    found = fields({"d": {"file": str(tmp_path / "a.vtu"), "method": method}})
    assert found.at(["d"], np.array([[0.25], [0.55]]))["d"] == pytest.approx(wanted + (method == "linear") * 2 * 0.05)


@pytest.mark.parametrize(
    ("mesh", "key", "message"),
    [
        (
            meshio.Mesh(FLAT, HALVES, RISE, {"v": [np.array([1.0, 2.0])]}),
            "field",
            "expected one field, found 'v' both at nodes and in cells; rename one",
        ),
        (
            meshio.Mesh(np.eye(4)[:, 1:], [("triangle", [[0, 1, 2]]), ("tetra", [[0, 1, 2, 3]])], RISE),
            "file",
            "expected a mesh in 2-D, with cells triangle, quad, triangle6, quad8, quad9; found tetra, triangle",
        ),
        (meshio.Mesh(FLAT * np.nan, HALVES, RISE), "file", "expected finite coordinates, found some that are not"),
        (meshio.Mesh(FLAT + np.eye(4)[:, 1:], HALVES, RISE), "file", "expected cells on a plane, found others"),
        (meshio.Mesh(FLAT, HALVES), "file", "expected a file with fields of values, found none"),
    ],
)
def test_meshes_that_have_no_such_field_are_refused(mesh: meshio.Mesh, key: str, message: str, tmp_path: Path) -> None:
    mesh.write(tmp_path / "a.vtu")
    found = complaints(
        data={
            "d": {"file": str(tmp_path / "a.vtu"), "field": "v"}
            if key == "field"
            else {"file": str(tmp_path / "a.vtu")}
        }
    )
    assert message in found[f"data.d.{key}"]


@pytest.mark.parametrize(
    ("name", "arrays", "key", "message"),
    [
        ("a.npz", {"points": np.eye(3)[:, :2], "values": np.ones(3) * 1j}, "field", "expected real numbers"),
        (
            "a.npz",
            {"points": np.zeros((0, 2)), "values": np.zeros(0)},
            "points",
            "expected a point or more, found none",
        ),
        ("a.npz", {"points": np.eye(3)[:, :2]}, "file", "expected a file with arrays of values, found none"),
        ("a.npy", np.ones((2, 2)) * 1j, "file", "expected real numbers, found an array of the type complex128"),
    ],
)
def test_arrays_that_are_not_real_numbers_are_refused(
    name: str, arrays: Any, key: str, message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / name, arrays) if name == "a.npy" else np.savez(tmp_path / name, **arrays)
    assert message in complaints(data={"d": {"file": str(tmp_path / name)}})[f"data.d.{key}"]


def test_other_arrays_of_an_archive_may_be_anything(tmp_path: Path) -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    np.savez(tmp_path / "a.npz", points=points, heights=points.sum(axis=1), names=np.array(["a", "b", "c"]))
    found = fields({"d": {"file": str(tmp_path / "a.npz"), "field": "heights"}})
    assert found.at(["d"], np.array([[0.25], [0.5]]))["d"] == pytest.approx(0.75)


def test_keys_of_data_without_effect_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0,0,1\n1,0,2\n0,1,3\n")
    Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / "a.png")
    found = complaints(
        data={
            "a": {"file": str(tmp_path / "a.csv"), "box": [[0, 0], [1, 1]]},
            "b": {"file": str(tmp_path / "a.png"), "field": "red"},
        }
    )
    assert found["data.a.box"] == "expected none, because the places in a.csv are those of its points"
    assert found["data.b.field"] == "expected none, because an image or an array has no names"


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([0, 1], "expected two opposite corners, [[x0, y0], [x1, y1]], found a list of 2"),
        (
            [[0, 0], [1, 1], [2, 2]],
            "expected two opposite corners, [[x0, y0], [x1, y1]], found [[0, 0], [1, 1], [2, 2]]",
        ),
        (
            [[0, 0.5], [1, 0.5]],
            "expected two opposite corners, [[x0, y0], [x1, y1]], that differ in every coordinate, "
            "found [[0, 0.5], [1, 0.5]]",
        ),
    ],
)
def test_a_wrong_box_is_answered_with_the_form_of_one(box: list[Any], said: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / "a.png")
    assert complaints(data={"a": {"file": str(tmp_path / "a.png"), "box": box}})["data.a.box"] == said


def test_names_of_data_are_not_taken() -> None:
    one = {"points": [[0, 0]], "values": [1], "method": "nearest"}
    assert "it means something else in expressions" in complaints(data={"x": one})["data.x"]
    assert "it is a coordinate of the mesh" in complaints(data={"y": one})["data.y"]
    assert "it means something else in expressions" in complaints(data={"lambda": one})["data.lambda"]
    assert "expected a name of letters" in complaints(data={"a b": one})["data.a b"]
    control = [{"kind": "parameter", "name": "k", "initial": 1}, {"kind": "source"}]
    assert "a control of kind parameter has it" in complaints(data={"k": one}, control=control)["data.k"]
    random = {"k": {"normal": [0, 1]}}
    assert "a random input under parameters has it" in complaints(data={"k": one}, parameters=random)["data.k"]


def test_objects_that_pickle_would_run_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    found = complaints(data={"d": {"file": str(tmp_path / "object.npy")}})
    assert "expected an array of numbers" in found["data.d.file"]


# Measurements over time


def heated(tmp_path: Path, text: str, **overrides: Any) -> nhgd.Problem:
    (tmp_path / "s.csv").write_text(text)
    content = square(
        mesh={"kind": "rectangle", "cells": [4, 4]},
        pde={"kind": "heat", "boundary": {"all": {"dirichlet": 0}}},
        time={"end": 1, "steps": 4},
        objective=[{"kind": "tracking", "at": str(tmp_path / "s.csv")}, SQUARE["objective"][1]],
    )
    return nhgd.load(content, overrides)


def test_a_measurement_is_the_state_at_its_point_and_time(tmp_path: Path) -> None:
    """Linear in space and between the levels: a state that is so is measured exactly."""
    rows = [(0.25, 0.5, 0.0, 3.0), (0.7, 0.3, 0.25, -1.0), (0.1, 0.9, 0.6, 0.5), (0.5, 0.5, 1.0, 2.0)]
    text = "x y t u weight\n" + "\n".join(" ".join(map(str, (*row, 2.0))) for row in rows)
    problem = heated(tmp_path, text)
    x, y = problem.pde.space.parts[0].nodes
    levels = np.linspace(0.0, 1.0, 5)[:, None]
    state = torch.from_numpy(((1 + x + 2 * y) * (1 + levels)).reshape(1, -1))
    term = problem.pde.objective.state[0]
    expected = sum(0.5 * 2.0 * ((1 + a + 2 * b) * (1 + t) - value) ** 2 for a, b, t, value in rows)
    assert float(term.value(state)) == pytest.approx(expected, rel=1e-13)


def test_a_time_that_rounding_puts_behind_the_end_is_measured_at_the_end(tmp_path: Path) -> None:
    text = "x, y, t, u\n0.5, 0.5, {}, 1\n"
    values = []
    for time in ("1", "1.0000000005"):
        problem = heated(tmp_path, text.format(time), **{"time.steps": 20000, "mesh.cells": [2, 2]})
        values.append(problem.pde.objective.state[0].target.tolist())
    assert values == [[1.0], [1.0]]


def test_measurements_of_a_vector_over_time(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("x, y, t, a, b\n0.5, 0.5, 0.5, 1, 2\n")
    content = square(
        mesh={"kind": "rectangle", "cells": [4, 4]},
        pde={"kind": "burgers", "viscosity": 1, "boundary": {"all": {"dirichlet": [0, 0]}}},
        time={"end": 1, "steps": 2},
        objective=[{"kind": "tracking", "at": str(tmp_path / "s.csv")}, SQUARE["objective"][1]],
    )
    problem = nhgd.load(content)
    state = np.zeros((1, 3, 2, problem.pde.space.parts[0].size))
    state[:, 1, 0], state[:, 1, 1] = 4.0, 6.0
    assert float(problem.pde.objective.state[0].value(torch.from_numpy(state.reshape(1, -1)))) == pytest.approx(12.5)


TEXT = "x, y, t, u\n0.4, 0.4, 0.1, 0.1\n0.6, 0.3, 0.5, 0.2\n0.2, 0.8, 0.75, 0.05\n0.5, 0.5, 1, 0.3\n"


def test_derivatives_with_measurements_over_time(tmp_path: Path) -> None:
    found = nhgd.verify(heated(tmp_path, TEXT))
    assert found.passed, str(found)


@pytest.mark.parametrize("settings", [{"time.memory": "3 kB"}, {"method": "fds", "control.space": "constant"}])
def test_measurements_over_time_where_not_all_states_are_kept(settings: dict[str, Any], tmp_path: Path) -> None:
    kept = {key: value for key, value in settings.items() if key.startswith("control")}
    whole = nhgd.solve(heated(tmp_path, TEXT, **kept))
    parts = nhgd.solve(heated(tmp_path, TEXT, **settings))
    assert parts.objective == pytest.approx(whole.objective, rel=1e-7)
    assert np.allclose(parts.control, whole.control, rtol=0.0, atol=1e-4 * np.abs(whole.control).max())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x, y, t, u\n0.5, 0.5, -0.1, 1\n", "line 2: expected a time from 0 to 1, found -0.1"),
        ("x, y, t, u\n0.5, 0.5, 0.5, 1\n0.5, 0.5, 1.5, 1\n", "line 3: expected a time from 0 to 1, found 1.5"),
        ("x, y, t, u\n0.5, 1.5, 0.5, 1\n", "line 2: the point (0.5, 1.5) is outside the mesh"),
        ("x, y, t\n0.5, 0.5, 0.5\n", "expected columns named x, y, maybe t, 1 value by any names, maybe weight"),
    ],
)
def test_wrong_measurements_over_time_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"objective\.0\.at") as caught:
        heated(tmp_path, text)
    assert message in str(caught.value)


def test_row_wise_products() -> None:
    generator = np.random.default_rng(0)
    a, b = (sp.random_array((6, n), density=0.5, rng=generator, format="csr") for n in (3, 4))
    wanted = np.stack([np.kron(one, other) for one, other in zip(a.toarray(), b.toarray(), strict=True)])
    found = row_wise_kronecker(sp.csr_matrix(a), sp.csr_matrix(b))
    assert np.array_equal(found.toarray(), wanted)


# The shipped problems


def test_the_conductivities_of_the_heated_plate_are_found_to_one_percent() -> None:
    found = nhgd.solve(nhgd.load(ROOT / "problems" / "heat_inversion.yaml"))
    assert found.status == "converged"
    for name, value in TRUTH.items():
        assert found.stats["controls"][name] == pytest.approx([value], rel=1e-2)


def test_the_insulated_wall_has_its_exact_flux() -> None:
    found = nhgd.solve(nhgd.load(ROOT / "problems" / "insulated_wall.yaml"))
    assert found.control == pytest.approx([1.0 / 6.5], rel=1e-9)


def test_the_image_as_a_target_gives_the_answer_of_its_formula() -> None:
    pixels = np.asarray(Image.open(ROOT / "problems" / "data" / "ring.png"))
    assert np.array_equal(pixels, picture())
    path = ROOT / "problems" / "image_target.yaml"
    one = nhgd.solve(nhgd.load(path))
    other = nhgd.solve(nhgd.load(path, {"objective.0.target": FORMULA}))
    # The objective is the square of a difference of nearly equal fields, which doubles the error between pixels.
    assert one.objective == pytest.approx(other.objective, rel=5e-3)
    difference = one.control - other.control
    assert np.linalg.norm(difference) < 5e-3 * np.linalg.norm(other.control)
