"""What a result shows besides state and control: stresses, coefficients, subdomains, sensors, parts of the boundary."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem
from click.testing import CliRunner

import nhgd_pde as nhgd
from nhgd_pde.cli import main
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.output.names import STATE_SCRIPT
from nhgd_pde.run.result_fields import subdomain_numbers
from problems import write_mesh

ROOT = Path(__file__).parents[1]
YOUNG, RATIO, PULL = 2.0, 0.3, 3.0
QUADRATIC = {"kind": "regularisation", "weight": 1.0e-3}
SQUARE = {"kind": "rectangle", "cells": [4, 3]}


def diffusion(**more: Any) -> dict[str, Any]:
    pde = {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}, **more.pop("pde", {})}
    return {
        "name": "fields",
        "mesh": SQUARE,
        "pde": pde,
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": 1}, QUADRATIC],
        **more,
    }


def solved(file: dict[str, Any], folder: Path | None = None) -> nhgd.Solution:
    found = nhgd.solve(nhgd.load(file), output=folder)
    assert isinstance(found, nhgd.Solution)
    return found


def cells(solution: nhgd.Solution, level: int = -1) -> dict[str, np.ndarray]:
    data = solution.fields(level)[1]
    assert data.left_out == ()
    return dict(data.cell)


# Bodies in tension, of which the stress is known: sigma_xx = 3 and no stress across the other sides.


def tension(plane: str | None, mesh: dict[str, Any], element: str) -> nhgd.Solution:
    along, across = PULL / YOUNG, -RATIO * PULL / YOUNG
    if plane == "strain":
        along, across = along * (1 - RATIO**2), across * (1 + RATIO)
    dim = 2 if plane else 3
    exact = [f"({along})*x", *(f"({across})*{axis}" for axis in "yz"[: dim - 1])]
    pde = {"kind": "elasticity", "young": YOUNG, "poisson_ratio": RATIO, "boundary": {"all": {"dirichlet": exact}}}
    return solved(
        {
            "name": "tension",
            "mesh": mesh,
            "element": element,
            "pde": {**pde, **({"plane": plane} if plane else {})},
            "control": {"kind": "source"},
            "objective": [{"kind": "tracking", "target": exact}, {"kind": "regularisation", "weight": 1}],
        }
    )


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize(
    ("plane", "mesh", "mises"),
    [
        ("stress", {"kind": "disk", "refine": 2}, PULL),
        ("stress", {"kind": "rectangle", "cells": [3, 2], "cell": "quadrilateral"}, PULL),
        ("strain", {"kind": "rectangle", "cells": [3, 2]}, PULL * math.sqrt(1 - RATIO + RATIO**2)),
        (None, {"kind": "box", "cells": [2, 2, 2]}, PULL),
        (None, {"kind": "box", "cells": [2, 2, 2], "cell": "hexahedron"}, PULL),
    ],
)
def test_the_stress_of_a_body_in_tension(plane: str | None, mesh: dict[str, Any], mises: float, element: str) -> None:
    solution = tension(plane, mesh, element)
    found = cells(solution)
    count = solution.problem.space.domain.mesh.nelements
    expected = np.zeros((3, 3))
    expected[0, 0] = PULL
    expected[2, 2] = RATIO * PULL if plane == "strain" else 0.0
    np.testing.assert_allclose(found["stress"], np.broadcast_to(expected, (count, 3, 3)), atol=1e-11)
    np.testing.assert_allclose(found["von_mises"], np.full(count, mises), rtol=1e-11)
    # The same numbers from the interface for values at points and integrals.
    middle = solution.problem.space.domain.mesh.p.mean(axis=1)[None] + 0.01
    assert solution.evaluate(middle, "stress")[0] == pytest.approx(expected, abs=1e-11)
    assert solution.integrate("stress_xx") == pytest.approx(PULL * solution.integrate(1), rel=1e-11)
    assert solution.evaluate(middle).shape == middle.shape
    np.testing.assert_array_equal(solution.evaluate(middle), solution.evaluate(middle, "displacement"))


def test_a_sheared_body() -> None:
    """Pure shear: the stress of von Mises is sqrt(3) times the shear stress."""
    shear = YOUNG / (2 * (1 + RATIO))
    pde = {"kind": "elasticity", "young": YOUNG, "poisson_ratio": RATIO}
    pde["boundary"] = {"all": {"dirichlet": ["y", "0"]}}
    objective = [{"kind": "tracking", "target": ["y", "0"]}, QUADRATIC]
    found = cells(
        solved({"name": "shear", "mesh": SQUARE, "pde": pde, "control": {"kind": "source"}, "objective": objective})
    )
    np.testing.assert_allclose(found["stress"][:, 0, 1], shear, rtol=1e-11)
    np.testing.assert_allclose(found["von_mises"], math.sqrt(3) * shear, rtol=1e-11)


def test_the_stress_takes_the_modulus_of_a_density() -> None:
    overrides = {"mesh.cells": [12, 4], "outer.iterations": 2, "control.filter": "helmholtz"}
    solution = nhgd.solve(nhgd.load(ROOT / "problems/mbb_beam.yaml", overrides))
    found = cells(solution)
    np.testing.assert_allclose(found["young"], 1e-9 + (1 - 1e-9) * found["density"] ** 3, rtol=1e-9)
    # Hooke's law in plane stress, from the displacement at the corners of the bilinear elements.
    mesh = solution.problem.space.domain.mesh
    u = solution.fields()[1].point["displacement"]
    basis = skfem.CellBasis(mesh, skfem.ElementVector(skfem.ElementQuad1()), intorder=3)
    whole = np.zeros(basis.N)
    whole[basis.nodal_dofs] = u.T
    grad = np.einsum("ijeq,eq->eij", basis.interpolate(whole).grad, basis.dx) / basis.dx.sum(1)[:, None, None]
    expected = found["young"] / (1 - 0.3**2) * (grad[:, 0, 0] + 0.3 * grad[:, 1, 1])
    np.testing.assert_allclose(found["stress"][:, 0, 0], expected, rtol=1e-9, atol=1e-12)


# Coefficients


def halves(path: Path, kind: str = "triangle") -> Path:
    """A square with the subdomains west and east."""
    mesh = meshes.rectangle([1, 1], [0, 0], [4, 4], "triangle" if kind == "triangle" else "quadrilateral")
    return write_mesh(path / "halves.msh", mesh, west=lambda x: x[0] < 0.5, east=lambda x: x[0] > 0.5)


@pytest.mark.parametrize("kind", ["triangle", "quad"])
def test_coefficients_of_subdomains_are_those_of_the_file(kind: str, tmp_path: Path) -> None:
    file = diffusion(
        mesh={"file": str(halves(tmp_path, kind))},
        pde={"conductivity": {"west": 2, "east": "1 + 0*x + 6"}, "reaction": 1.5},
        element="P2",
    )
    solution = solved(file, tmp_path / "run")
    final = meshio.read(tmp_path / "run" / "final.vtu")
    numbers = json.loads((tmp_path / "run" / "summary.json").read_text())["subdomains"]
    west = final.points[final.cells[0].data].mean(axis=1)[:, 0] < 0.5
    assert numbers.keys() == {"west", "east"} and sorted(numbers.values()) == [1, 2]
    np.testing.assert_array_equal(final.cell_data["subdomain"][0], np.where(west, numbers["west"], numbers["east"]))
    np.testing.assert_allclose(final.cell_data["conductivity"][0], np.where(west, 2.0, 7.0), rtol=1e-14)
    assert "reaction" not in final.cell_data
    assert solution.integrate("conductivity", on="east") == pytest.approx(3.5, rel=1e-12)


def test_cells_in_several_subdomains_have_a_number_of_their_own() -> None:
    mesh = meshes.interval(cells=6).with_subdomains(
        {"a": lambda x: x[0] < 0.5, "b": lambda x: (x[0] > 0.33) & (x[0] < 0.8), "inner": lambda x: x[0] < 0.2}
    )
    numbers, names = subdomain_numbers(meshes.domain(mesh))
    called = {number: name for name, number in names.items()}
    assert [called.get(int(number)) for number in numbers] == ["a and inner", "a", "a and b", "b", "b", None]
    assert numbers[-1] == 0 and sorted(names.values()) == [1, 2, 3, 4]


def test_a_log_conductivity_is_shown_as_it_enters_the_equation() -> None:
    overrides = {"mesh.cells": [8, 8], "outer.iterations": 3}
    solution = nhgd.solve(nhgd.load(ROOT / "problems/log_conductivity_inversion.yaml", overrides))
    file = nhgd.load(ROOT / "problems/log_conductivity_inversion.yaml").file.spec.keyed_controls[0][1]
    assert file.kind == "log_conductivity"
    data = solution.fields()[1]
    if "control" in data.cell:
        expected = np.exp(data.cell["control"])
    else:
        # The mean of exp over a cell, by another rule than that of the equation.
        mesh = solution.problem.space.domain.mesh
        basis = skfem.CellBasis(mesh, skfem.ElementTriP1(), intorder=10)
        values = np.exp(basis.interpolate(data.point["control"]))
        expected = (values * basis.dx).sum(1) / basis.dx.sum(1)
    np.testing.assert_allclose(data.cell["conductivity"], expected, rtol=1e-3)
    assert np.ptp(data.cell["conductivity"]) > 0.0


def test_conductivities_that_are_controls_or_follow_parameters() -> None:
    known = solved(
        diffusion(
            control={"kind": "conductivity", "space": "P0", "initial": 2, "bounds": [0.5, 4]},
            pde={"source": "1"},
            objective=[{"kind": "tracking", "target": "x*(1-x)*y*(1-y)"}, {"kind": "regularisation", "weight": 1e-6}],
            outer={"iterations": 3},
        )
    )
    found = cells(known)
    np.testing.assert_allclose(found["conductivity"], found["control"], rtol=1e-13)
    fit = nhgd.solve(nhgd.load(ROOT / "problems/parameter_fit.yaml", {"mesh.cells": [8, 8]}))
    assert set(cells(fit)) & {"conductivity", "source", "reaction"}


def test_matrices_and_vectors() -> None:
    found = cells(solved(diffusion(pde={"conductivity": [["1 + x", 0.5], [0.5, 2]]})))
    assert found["conductivity"].shape == (24, 2, 2)
    np.testing.assert_array_equal(found["conductivity"][:, 0, 1], 0.5)
    assert np.ptp(found["conductivity"][:, 0, 0]) > 0.1
    swirl = {"kind": "advection_diffusion", "conductivity": 0.5, "velocity": ["y", "1"], "stabilisation": "none"}
    found = cells(solved(diffusion(pde=swirl)))
    centres = nhgd.load(diffusion()).pde.space.domain.mesh
    middle = centres.p[:, centres.t].mean(axis=1)
    np.testing.assert_allclose(found["velocity"], np.stack([middle[1], np.ones(24)], axis=1), rtol=1e-12)
    assert "conductivity" not in found and "cell_length" not in found


def test_a_coefficient_of_a_function_with_a_taken_name(tmp_path: Path) -> None:
    (tmp_path / "form.py").write_text(
        "def form(u, grad, c, x):\n    return -c['source'], c['control'] * grad\n", encoding="utf-8"
    )
    file = diffusion()
    file["pde"] = {
        "python": f"{tmp_path / 'form.py'}:form",
        "coefficients": {"control": "1 + x", "many": ["x", "y", "1", "x*y"]},
        "boundary": {"all": {"dirichlet": 0}},
    }
    found = cells(solved(file))
    mesh = nhgd.load(diffusion()).pde.space.domain.mesh
    np.testing.assert_allclose(found["coefficient_control"], 1.0 + mesh.p[0, mesh.t].mean(axis=0), rtol=1e-12)
    assert {"many_0", "many_1", "many_2", "many_3"} <= found.keys()


def test_an_evolution_has_the_coefficients_of_each_step(tmp_path: Path) -> None:
    file = diffusion(
        mesh={"kind": "interval", "cells": 6},
        pde={"kind": "heat", "conductivity": "1 + t", "capacity": "2 + x"},
        time={"end": 1, "steps": 4, "scheme": "implicit_euler", "initial": "0"},
    )
    solution = solved(file, tmp_path / "run")
    index = (tmp_path / "run" / "evolution" / "evolution.pvd").read_text()
    assert index.count("<DataSet") == 5
    for level, moment in enumerate([0.25, 0.25, 0.5, 0.75, 1.0]):
        final = meshio.read(tmp_path / "run" / "evolution" / f"evolution_{level:05d}.vtu")
        np.testing.assert_allclose(final.cell_data["conductivity"][0], 1.0 + moment, rtol=1e-12)
        np.testing.assert_allclose(final.cell_data["capacity"][0], 2.0 + (np.arange(6) + 0.5) / 6, rtol=1e-12)
    np.testing.assert_allclose(cells(solution)["conductivity"], 2.0, rtol=1e-12)
    for more in ({"time.memory": 300}, {"method": "fds", "control": {"kind": "source", "space": "constant"}}):
        # These keep the last step alone.
        last = nhgd.solve(nhgd.load(file, {**more, "pde.conductivity": "(1 + t)*(2 + x)"}))
        np.testing.assert_allclose(cells(last)["conductivity"], 4.0 + (np.arange(6) + 0.5) / 3, rtol=1e-12)
        np.testing.assert_allclose(cells(last)["capacity"], 2.0 + (np.arange(6) + 0.5) / 6, rtol=1e-12)


def test_scenarios_have_the_coefficients_of_the_nominal_one(tmp_path: Path) -> None:
    file = diffusion(
        parameters={"k": {"uniform": [1, 3]}},
        pde={"conductivity": "k*(1 + x)", "boundary": {"all": {"dirichlet": 0}}},
        scenarios={"sampling": "quadrature", "rule": "tensor", "points": 3},
    )
    solution = solved(file, tmp_path / "run")
    mesh = solution.problem.space.domain.mesh
    np.testing.assert_allclose(cells(solution)["conductivity"], 2.0 * (1.0 + mesh.p[0, mesh.t].mean(axis=0)), rtol=1e-6)
    body = {"mesh.cells": [6, 6], "outer.iterations": 1}
    data = nhgd.solve(nhgd.load(ROOT / "problems/robust_topology.yaml", body)).fields()[1]
    assert {"displacement", "displacement_std", "displacement_worst"} <= data.point.keys()
    assert "young" in data.cell and "von_mises" not in data.cell and data.left_out == ()


def test_the_magnitude_of_complex_fields() -> None:
    solution = nhgd.solve(nhgd.load(ROOT / "problems/helmholtz_control.yaml", {"mesh.cells": [8, 8]}))
    point = solution.fields()[1].point
    for name in ("state", "adjoint", "target"):
        size = np.sqrt(point[f"{name}_real"] ** 2 + point[f"{name}_imag"] ** 2)
        np.testing.assert_allclose(point[f"{name}_magnitude"], size, rtol=1e-14)
    values = solution.evaluate([[0.4, 0.6]])
    assert values.dtype == complex
    assert values[0].real == pytest.approx(solution.evaluate([[0.4, 0.6]], "state_real")[0])


def test_what_cannot_be_computed_is_a_warning(tmp_path: Path) -> None:
    """A function of the user that fails once the run has ended."""
    flag = tmp_path / "ended"
    (tmp_path / "enter.py").write_text(
        f"from pathlib import Path\n\n\ndef enter(c, v):\n    if Path({str(flag)!r}).exists():\n"
        "        raise RuntimeError('not now')\n    return {**c, 'source': c['source'] + v}\n",
        encoding="utf-8",
    )

    def end(row: object) -> bool:
        flag.touch()
        return True

    file = diffusion(control={"kind": "python", "python": f"{tmp_path / 'enter.py'}:enter"})
    solution = nhgd.solve(nhgd.load(file), output=tmp_path / "run", callback=end)
    assert solution.status == "interrupted"
    final = meshio.read(tmp_path / "run" / "final.vtu")
    assert final.point_data["state"].shape == (20,) and "source" not in final.cell_data
    told = [text for text in solution.stats["warnings"] if "RuntimeError: not now" in text]
    assert len(told) == 1 and "coefficients of the equation" in told[0]
    assert told[0] in json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"]


# Sensors


def test_sensors_are_points_whose_misfits_make_the_term(tmp_path: Path) -> None:
    rows = ["0.2, 0.3, 0.5, 2.0", "0.7, 0.6, -0.1, 0.5", "0.5, 0.5, 0.3, 1.0"]
    (tmp_path / "sensors.csv").write_text("\n".join(rows))
    sensors = {"kind": "tracking", "at": str(tmp_path / "sensors.csv"), "weight": 3.0}
    file = diffusion(objective=[QUADRATIC, sensors, {"kind": "tracking", "target": 0, "weight": 1e-3}])
    solution = solved(file, tmp_path / "run")
    found = meshio.read(tmp_path / "run" / "sensors.vtu")
    data = found.point_data
    assert found.cells[0].type == "vertex"
    np.testing.assert_allclose(found.points[:, :2], [[0.2, 0.3], [0.7, 0.6], [0.5, 0.5]])
    np.testing.assert_allclose(data["measured"], [0.5, -0.1, 0.3])
    np.testing.assert_allclose(data["weight"], [6.0, 1.5, 3.0])
    np.testing.assert_allclose(data["computed"], solution.evaluate(found.points[:, :2]), rtol=1e-12)
    np.testing.assert_allclose(data["misfit"], data["computed"] - data["measured"], rtol=1e-12)
    assert (data["term"] == 1).all()
    term = float((0.5 * data["weight"] * data["misfit"] ** 2).sum())
    assert term == pytest.approx(solution.terms["tracking_1"], rel=1e-12)


@pytest.mark.parametrize("more", [{}, {"time.memory": 300}])
def test_sensors_at_the_end_of_an_evolution(more: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "sensors.csv").write_text("0.25 1\n0.5 2\n")
    file = diffusion(
        mesh={"kind": "interval", "cells": 8},
        pde={"kind": "heat"},
        time={"end": 1, "steps": 4, "scheme": "implicit_euler", "initial": "0"},
        objective=[{"kind": "tracking", "at": str(tmp_path / "sensors.csv"), "time": "final"}, QUADRATIC],
    )
    solution = nhgd.solve(nhgd.load(file, more))
    found = solution.sensors()
    assert found is not None
    np.testing.assert_allclose(found[1].point["computed"], solution.evaluate(found[0].points), rtol=1e-10)


@pytest.mark.parametrize("more", [{"time.memory": 300}, {"method": "fds"}])
@pytest.mark.parametrize("nonlinear", [False, True])
def test_sensors_over_time_without_states(more: dict[str, Any], nonlinear: bool, tmp_path: Path) -> None:
    """Measurements at all times, in the order of their files, are those of the run that keeps its states."""
    (tmp_path / "one.csv").write_text("x,t,value\n0.5,0.61,1\n0.25,0,2\n0.5,1,3\n0.75,0.1,4\n0.25,0.25,5\n")
    (tmp_path / "two.csv").write_text("x,t,value,weight\n0.375,0.3,1,2\n")
    pde: dict[str, Any] = {"kind": "heat"}
    if nonlinear:
        pde = {"kind": "allen_cahn", "epsilon": 0.5}
    file = diffusion(
        mesh={"kind": "interval", "cells": 8},
        pde=pde,
        time={"end": 1, "steps": 12, "scheme": "crank_nicolson", "initial": "sin(pi*x)"},
        control={"kind": "source", "space": "time", "windows": 3},
        objective=[{"kind": "tracking", "at": str(tmp_path / name)} for name in ("one.csv", "two.csv")] + [QUADRATIC],
    )
    found = nhgd.solve(nhgd.load(file, {**more, "outer.iterations": 3}))
    whole = nhgd.solve(nhgd.load(file), callback=lambda row: True, initial=found.control)
    # The unknowns of all steps are counted, kept or not.
    assert found.stats["state_dofs"] == whole.stats["state_dofs"] == 12 * 7
    here, there = found.sensors(), whole.sensors()
    assert here is not None and there is not None
    np.testing.assert_array_equal(here[0].points, there[0].points)
    assert here[1].point["time"].tolist() == [0.61, 0, 1, 0.1, 0.25, 0.3]
    assert here[1].point.keys() == there[1].point.keys()
    for name, values in there[1].point.items():
        np.testing.assert_allclose(here[1].point[name], values, rtol=1e-7, atol=1e-9, err_msg=name)


def test_sensors_of_a_vector_and_of_scenarios(tmp_path: Path) -> None:
    (tmp_path / "both.csv").write_text("0.5 0.5 1 2\n")
    (tmp_path / "second.csv").write_text("0.25 0.5 3\n")
    pde = {"kind": "elasticity", "young": "k", "boundary": {"left": {"dirichlet": [0, 0]}}}
    objective = [
        {"kind": "tracking", "at": str(tmp_path / "both.csv")},
        {"kind": "tracking", "at": str(tmp_path / "second.csv"), "component": 1},
        {"kind": "regularisation", "weight": 1e-2},
    ]
    file = {"name": "body", "mesh": SQUARE, "pde": pde, "control": {"kind": "source"}, "objective": objective}
    one = solved({**file, "pde": {**pde, "young": 2}}).sensors()
    assert one is not None
    measured = one[1].point["measured"]
    np.testing.assert_array_equal(measured[0], [1, 2])
    assert np.isnan(measured[1, 0]) and measured[1, 1] == 3 and one[1].point["term"].tolist() == [0, 1]
    scenarios = {"sampling": "quadrature", "rule": "tensor", "points": 3}
    many = solved({**file, "parameters": {"k": {"uniform": [1, 3]}}, "scenarios": scenarios})
    found = many.sensors()
    assert found is not None
    np.testing.assert_allclose(found[1].point["computed"][0], many.evaluate([[0.5, 0.5]])[0], rtol=1e-12)
    deviation = many.evaluate([[0.5, 0.5]], "displacement_std")[0]
    np.testing.assert_allclose(found[1].point["computed_std"][0], deviation, rtol=0.2)


# Controls of the boundary


def measure(mesh: meshio.Mesh) -> np.ndarray:
    """The lengths or areas of the cells."""
    x = mesh.points[mesh.cells[0].data]
    if mesh.cells[0].type == "line":
        return np.asarray(np.linalg.norm(x[:, 1] - x[:, 0], axis=1))
    areas = np.linalg.norm(np.cross(x[:, 1] - x[:, 0], x[:, 2] - x[:, 0]), axis=1) / 2
    if mesh.cells[0].type == "quad":
        areas += np.linalg.norm(np.cross(x[:, 2] - x[:, 0], x[:, 3] - x[:, 0]), axis=1) / 2
    return np.asarray(areas)


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize(
    ("mesh", "size"),
    [
        ({"kind": "rectangle", "size": [2, 3], "cells": [4, 6]}, 3.0),
        ({"kind": "rectangle", "size": [2, 3], "cells": [4, 6], "cell": "quadrilateral"}, 3.0),
        ({"kind": "box", "size": [1, 2, 3], "cells": [2, 2, 2]}, 6.0),
        ({"kind": "box", "size": [1, 2, 3], "cells": [2, 3, 2], "cell": "hexahedron"}, 6.0),
    ],
)
@pytest.mark.parametrize("space", ["P0", "P1"])
def test_the_part_of_a_boundary_control(
    mesh: dict[str, Any], size: float, element: str, space: str, tmp_path: Path
) -> None:
    file = diffusion(
        mesh=mesh,
        element=element,
        pde={"boundary": {"left": {"dirichlet": 0}}},
        control={"kind": "neumann", "on": "right", "space": space},
        objective=[{"kind": "tracking", "target": "x*(1 + y)"}, QUADRATIC],
    )
    solution = solved(file, tmp_path / "run")
    found = meshio.read(tmp_path / "run" / "boundary_control.vtu")
    assert measure(found).sum() == pytest.approx(size, rel=1e-12)
    np.testing.assert_allclose(found.points[:, 0], found.points[:, 0].max())
    data = found.point_data if space == "P1" else {name: each[0] for name, each in found.cell_data.items()}
    assert data.keys() == {"control", "sensitivity"}
    nodes = found.cells[0].data
    means = data["control"] if space == "P0" else data["control"][nodes].mean(axis=1)
    # The midpoint rule is exact for piecewise constant and, on these grids, for linear functions.
    assert (means * measure(found)).sum() == pytest.approx(solution.integrate("control", on="right"), rel=1e-10)


def test_several_boundary_controls_and_numbers(tmp_path: Path) -> None:
    control = [
        {"kind": "neumann", "on": "right", "name": "east"},
        {"kind": "dirichlet", "on": "top", "name": "north", "space": "constant"},
        {"kind": "source", "name": "inner"},
    ]
    file = diffusion(pde={"boundary": {"left": {"dirichlet": 0}}}, control=control)
    solution = solved(file, tmp_path / "run")
    found = meshio.read(tmp_path / "run" / "boundary_control.vtu")
    assert measure(found).sum() == pytest.approx(2.0)
    north = found.cell_data["control_north"][0]
    top = found.points[found.cells[0].data][:, :, 1].min(axis=1) > 1 - 1e-12
    np.testing.assert_array_equal(np.isnan(north), ~top)
    np.testing.assert_allclose(north[top], solution.controls["north"][0])
    east = found.point_data["control_east"]
    np.testing.assert_array_equal(np.isnan(east), found.points[:, 0] < 1 - 1e-12)
    np.testing.assert_allclose(np.sort(east[~np.isnan(east)]), np.sort(solution.controls["east"]))


def test_a_boundary_control_on_an_interval_in_time(tmp_path: Path) -> None:
    file = diffusion(
        mesh={"kind": "interval", "cells": 6},
        pde={"kind": "heat", "boundary": {"left": {"dirichlet": 0}}},
        time={"end": 1, "steps": 4, "scheme": "implicit_euler", "initial": "0"},
        control={"kind": "neumann", "on": "right", "space": "P1"},
    )
    solution = solved(file, tmp_path / "run")
    values = solution.controls["control"]
    frames = list(solution.boundary_frames())
    assert values.shape == (4, 1) and len(frames) == len(solution.times) == 5
    for level, (grid, data) in enumerate(frames):
        assert grid.cell_type == "vertex" and data.time == solution.times[level]
        assert data.point["control"].tolist() == values[max(level - 1, 0)].tolist()
    index = (tmp_path / "run" / "boundary_control" / "boundary_control.pvd").read_text()
    assert index.count("<DataSet") == len(frames)
    last = meshio.read(tmp_path / "run" / "boundary_control.vtu")
    assert last.points.tolist() == [[1, 0, 0]] and last.point_data["control"].tolist() == values[-1].tolist()


def test_a_problem_without_them_has_no_such_files(tmp_path: Path) -> None:
    solved(diffusion(), tmp_path / "run")
    names = {item.name for item in (tmp_path / "run").iterdir()}
    assert {"final.vtu", STATE_SCRIPT} <= names and not names & {"sensors.vtu", "boundary_control.vtu"}
    # A later run of the same problem clears what it does not write itself.
    (tmp_path / "run" / "sensors.vtu").write_text("old")
    (tmp_path / "run" / "density.stl").write_text("old")
    solved(diffusion(), tmp_path / "run")
    assert not {item.name for item in (tmp_path / "run").iterdir()} & {"sensors.vtu", "density.stl"}


# Names, and what is said of the files


def test_states_have_the_names_of_their_quantities() -> None:
    flow = nhgd.solve(nhgd.load(ROOT / "problems/stokes_control.yaml", {"mesh.cells": [4, 4]}))
    point = flow.fields()[1].point
    assert list(point)[:2] == ["velocity", "pressure"] and {"adjoint_velocity", "adjoint_pressure"} <= point.keys()
    np.testing.assert_array_equal(flow.evaluate([[0.3, 0.4]]), flow.evaluate([[0.3, 0.4]], "velocity"))
    body = tension("stress", {"kind": "rectangle", "cells": [3, 2]}, "P1")
    assert list(body.fields()[1].point) == ["displacement", "control", "target", "adjoint", "sensitivity"]
    with pytest.raises(ValueError, match="expected one of displacement"):
        body.evaluate([[0.3, 0.4]], "velocity")


def test_the_last_line_names_the_file_for_evolutions(tmp_path: Path) -> None:
    steady = CliRunner().invoke(
        main,
        [
            "solve",
            str(ROOT / "problems/poisson_control.yaml"),
            "--set",
            "mesh.cells=[8,8]",
            "--output",
            str(tmp_path / "s"),
            "-q",
        ],
    )
    last = steady.output.splitlines()[-1]
    assert "final.vtu in ParaView" in last and "fields/state.pvd has the iterations" in last
    moving = CliRunner().invoke(
        main,
        [
            "solve",
            str(ROOT / "problems/heat_control.yaml"),
            "--set",
            "mesh.cells=[8]",
            "--output",
            str(tmp_path / "m"),
            "-q",
        ],
    )
    last = moving.output.splitlines()[-1]
    assert "evolution/evolution.pvd in ParaView" in last and "in fields/state.pvd it is the iteration" in last
    assert (tmp_path / "m" / "evolution" / "evolution.pvd").exists()
    assert "<!-- timestep: the outer iteration, not a time -->" in (tmp_path / "m/fields/state.pvd").read_text()


def test_the_state_of_paraview_is_python_without_paths_of_this_machine(tmp_path: Path) -> None:
    solved(diffusion(), tmp_path / "run")
    text = (tmp_path / "run" / STATE_SCRIPT).read_text(encoding="ascii")
    tree = ast.parse(text)
    assert str(tmp_path) not in text and str(ROOT) not in text
    # A module of this name in the folder would hide that of ParaView.
    assert STATE_SCRIPT != "paraview.py"
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"json", "os", "sys"}
    names = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert {"final.vtu", "sensors.vtu", "evolution.pvd", "displacement", "von_mises", "subdomain", "misfit"} <= names
