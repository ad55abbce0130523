"""Quadrilaterals and hexahedra: files in VTK's order of vertices, quadrature, orders of convergence, output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem
import torch
from mesh_files import read_mesh
from numpy.typing import NDArray

import nhgd_pde as nhgd
from benchmarks.reference import (
    ALPHA,
    SPECTRAL_CONTROL,
    SPECTRAL_OBJECTIVE,
    SPECTRAL_TARGET,
    control_error,
    orders,
    poisson_control,
    spectral_optimum,
)
from nhgd_pde.fem import mesh as meshes
from nhgd_pde.fem.mesh import domain
from nhgd_pde.fem.spaces import Space, space
from nhgd_pde.output.field_layout import Pictured
from nhgd_pde.output.fields import FieldData, Grid
from nhgd_pde.output.pictures import picture
from problems import CPU, slope, write_mesh

Points = NDArray[np.float64]

elements = pytest.mark.parametrize("element", ["P1", "P2"])
kinds = pytest.mark.parametrize("kind", ["quad", "hexahedron"])

# VTK's reference cells. A triquadratic hexahedron has vertices, midpoints of edges, of the facets x = 0, x = 1,
# y = 0, y = 1, z = 0, z = 1, and its centre (vtkTriQuadraticHexahedron).
QUAD9 = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 0], [2, 1], [1, 2], [0, 1], [1, 1]]) / 2
HEX27 = np.array(
    [[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0], [0, 0, 2], [2, 0, 2], [2, 2, 2], [0, 2, 2],
     [1, 0, 0], [2, 1, 0], [1, 2, 0], [0, 1, 0], [1, 0, 2], [2, 1, 2], [1, 2, 2], [0, 1, 2],
     [0, 0, 1], [2, 0, 1], [2, 2, 1], [0, 2, 1],
     [0, 1, 1], [2, 1, 1], [1, 0, 1], [1, 2, 1], [1, 1, 0], [1, 1, 2], [1, 1, 1]]
) / 2  # fmt: skip
VTK = {"quad": QUAD9[:4], "quad9": QUAD9, "hexahedron": HEX27[:8], "hexahedron27": HEX27}


def weights_of(functions: Space, facets: np.ndarray | None = None) -> tuple[Points, Points]:
    """Quadrature points (dim, n) and weights (n,) in the cells or on some facets."""
    rule = (functions.cells if facets is None else functions.facets(facets)).quadrature
    return rule.x.reshape(functions.domain.dim, -1).numpy(), rule.weights.reshape(-1).numpy()


# Mesh files


def bent(x: Points) -> Points:
    """The unit square or cube (n, dim) under a map that is linear in each coordinate: facets are not plane in space."""
    image = x.copy()
    image[:, 1] = x[:, 1] * (1 + x[:, 0] / 2)
    if x.shape[1] == 3:
        image[:, 2] = x[:, 2] * (1 + x[:, 0] * x[:, 1] / 4)
    return image


def bent_file(path: Path, dim: int) -> Path:
    """A gmsh file of the bent square or cube, 2 x 3 (x 2) cells, all in VTK's order, written without scikit-fem."""
    counts = np.array([2, 3, 2][:dim])
    nodes = np.indices(counts + 1).reshape(dim, -1).T
    number = {tuple(node): k for k, node in enumerate(nodes.tolist())}
    corners = VTK[{2: "quad", 3: "hexahedron"}[dim]].astype(int)
    lows = np.indices(counts).reshape(dim, -1).T
    cells = np.array([[number[tuple(low + corner)] for corner in corners.tolist()] for low in lows])
    around = {2: [[0], [1]], 3: [[0, 0], [1, 0], [1, 1], [0, 1]]}[dim]
    blocks, tags = [(("quad", "hexahedron")[dim - 2], cells)], [1 + (lows[:, 0] > 0)]
    names = {"core": np.array([1, dim]), "rest": np.array([2, dim])}
    for axis, pair in zip(range(dim), (("left", "right"), ("bottom", "top"), ("front", "back")), strict=False):
        for end, name in enumerate(pair):
            facets = []
            for low in lows[lows[:, axis] == end * (counts[axis] - 1)]:
                facet = low + np.insert(np.array(around), axis, end, axis=1)
                facets.append([number[tuple(vertex)] for vertex in facet.tolist()])
            names[name] = np.array([len(names) + 1, dim - 1])
            blocks.append((("line", "quad")[dim - 2], np.array(facets)))
            tags.append(np.full(len(facets), len(names)))
    points = np.pad(bent(nodes / counts), ((0, 0), (0, 3 - dim)))
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
    meshio.write(path, meshio.Mesh(points, blocks, cell_data=data, field_data=names), "gmsh22")
    return path


SLANT = np.sqrt(1.25)
MEASURES: dict[int, dict[str, float]] = {
    2: {"left": 1, "right": 1.5, "bottom": 1, "top": SLANT},
    3: {"left": 1, "right": 1.5 * 1.125, "bottom": 1, "top": SLANT * 1.125, "front": 1.25},
}


@pytest.mark.parametrize("refine", [0, 1, 2])
@elements
@pytest.mark.parametrize("dim", [2, 3])
def test_a_file_in_the_order_of_vtk_gives_exact_measures(tmp_path: Path, dim: int, element: str, refine: int) -> None:
    """The integrands are polynomials in the coordinates before the bend."""
    found = domain(read_mesh(bent_file(tmp_path / "bent.msh", dim)), refine)
    functions = space(found, element, CPU)
    x, weights = weights_of(functions)
    assert weights.sum() == pytest.approx({2: 5 / 4, 3: 4 / 3}[dim], rel=1e-13)
    assert weights @ x[1] == pytest.approx({2: 19 / 24, 3: 19 / 24 + 5 / 72 + 1 / 192}[dim], rel=1e-13)
    assert set(found.boundaries) == {*MEASURES[dim], *(["back"] if dim == 3 else []), "all"}
    for name, measure in MEASURES[dim].items():
        on, area = weights_of(functions, found.boundaries[name])
        assert area.sum() == pytest.approx(measure, rel=1e-12), name
        if name in ("left", "right"):
            assert np.allclose(on[0], name == "right", rtol=0, atol=1e-12)
    core = {2: 9 / 16, 3: 1 / 2 + 5 / 64 + 1 / 384}[dim]
    parts = {name: found.mesh.restrict(cells) for name, cells in found.subdomains.items()}
    volumes = {name: skfem.Basis(part, part.elem(), intorder=3).dx.sum() for name, part in parts.items()}
    assert volumes["core"] == pytest.approx(core, rel=1e-13)
    assert volumes["rest"] == pytest.approx(weights.sum() - core, rel=1e-13)


@pytest.mark.parametrize("suffix", [".vtk", ".vtu", ".msh", ".inp"])
@pytest.mark.parametrize("kind", ["quad", "hexahedron"])
def test_other_formats_give_the_same_cells(tmp_path: Path, kind: str, suffix: str) -> None:
    """Two unit cells are side by side; the vertices of the second one begin at another corner."""
    corners = VTK[kind]
    points = np.unique(np.vstack([corners, corners + np.eye(corners.shape[1])[0]]), axis=0)
    place = {tuple(point): k for k, point in enumerate(points.tolist())}
    turned = {"quad": [2, 3, 0, 1], "hexahedron": [4, 7, 6, 5, 0, 3, 2, 1]}[kind]
    cells = [[place[tuple(corner)] for corner in corners.tolist()]]
    cells.append([place[tuple(corner)] for corner in (corners + np.eye(corners.shape[1])[0])[turned].tolist()])
    spatial = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    path = tmp_path / f"two{suffix}"
    meshio.write(path, meshio.Mesh(spatial, {kind: np.array(cells)}), "gmsh22" if suffix == ".msh" else None)
    found = domain(read_mesh(path))
    assert found.cell == kind and found.mesh.nelements == 2
    assert len(found.boundaries["all"]) == {"quad": 6, "hexahedron": 10}[kind]
    assert weights_of(space(found, "P1", CPU))[1].sum() == pytest.approx(2.0, rel=1e-14)


# Spaces


def sheared(kind: str) -> meshes.Domain:
    """A mesh of equal parallelograms or parallelepipeds."""
    if kind == "quad":
        mesh = meshes.rectangle((1, 2), (0, 1), (2, 2), "quadrilateral")
        return domain(type(mesh)(np.array([[1.0, 0.4], [-0.3, 0.8]]) @ mesh.p, mesh.t))
    mesh = meshes.box((1, 2, 1), (0, 1, 0), (1, 2, 1), "hexahedron")
    shear = np.array([[1.0, 0.4, 0.1], [-0.3, 0.8, 0.2], [0.0, 0.3, 1.2]])
    return domain(type(mesh)(shear @ mesh.p, mesh.t))


@pytest.mark.parametrize("element", ["P0", "P1", "P2"])
@kinds
def test_mass_matrices_are_exact_on_affine_cells(kind: str, element: str) -> None:
    functions = space(sheared(kind), element, CPU)
    one = torch.ones_like(functions.cells.quadrature.weights)[None]
    found = functions.cells.assemble(functions.cells, {(0, 0): one}, True).host().toarray()
    fine = skfem.Basis(functions.domain.mesh, functions.basis.elem, intorder=10)
    expected = skfem.BilinearForm(lambda u, v, _: u * v).assemble(fine).toarray()
    assert np.abs(found - expected).max() < 1e-14 * np.abs(expected).max()
    assert np.linalg.eigvalsh(found).min() > 0.0


@elements
@kinds
def test_products_with_a_control_are_exact(kind: str, element: str) -> None:
    """P0 and P1 controls use the quadrature of the state."""
    state = space(sheared(kind), element, CPU)
    one = torch.ones_like(state.cells.quadrature.weights)[None]
    for name in ("P0", "P1"):
        control = space(state.domain, name, CPU, like=state)
        assert torch.equal(control.cells.quadrature.x, state.cells.quadrature.x)
        found = state.cells.assemble(control.cells, {(0, 0): one}).host().toarray()
        bases = [skfem.Basis(state.domain.mesh, each.basis.elem, intorder=10) for each in (control, state)]
        expected = skfem.BilinearForm(lambda u, v, _: u * v).assemble(*bases).toarray()
        assert np.abs(found - expected).max() < 1e-14 * np.abs(expected).max()


@elements
@kinds
def test_the_space_contains_its_polynomials(kind: str, element: str) -> None:
    """Polynomials of the degree in every coordinate are interpolated at `nodes`; values and derivatives are exact."""
    degree = int(element[1])
    mesh = meshes.rectangle((1, 1), (0, 0), (2, 3), "quadrilateral")
    if kind == "hexahedron":
        mesh = meshes.box((1, 1, 1), (0, 0, 0), (2, 3, 2), "hexahedron")
    functions = space(domain(mesh), element, CPU)
    dim = functions.domain.dim
    x = functions.cells.quadrature.x.reshape(dim, -1).numpy()

    def polynomial(at: Points, derivative: int | None = None) -> Points:
        factors = [(1.0 + k - at[k]) ** degree for k in range(dim)]
        if derivative is not None:
            factors[derivative] = -degree * (1.0 + derivative - at[derivative]) ** (degree - 1)
        return np.asarray(np.prod(factors, axis=0))

    values = functions.cells.evaluate(torch.from_numpy(polynomial(functions.nodes))[None])[:, 0].numpy()
    expected = [polynomial(x), *(polynomial(x, k) for k in range(dim))]
    assert np.allclose(values, expected, rtol=0, atol=1e-12)
    for facets in functions.domain.boundaries.values():
        on = functions.facets(facets)
        found = on.evaluate(torch.from_numpy(polynomial(functions.nodes))[None])[0, 0].numpy()
        assert np.allclose(found, polynomial(on.quadrature.x.reshape(dim, -1).numpy()), rtol=0, atol=1e-12)


# Orders of convergence


def state_error(mesh: dict[str, Any], element: str, exact: str, value: Callable[[Points], Points], rate: int) -> float:
    """L2 error of the state of -lap u + u = source, with the weight of the control so large that it is left at zero.

    A flux on the right, an exchange of heat on the left, values elsewhere; rate: -lap u = rate * u.
    """
    slope_x = exact.replace("sin", "2*cos")
    solution = nhgd.solve(
        nhgd.load(
            {
                "name": "manufactured",
                "mesh": mesh,
                "element": element,
                "pde": {
                    "kind": "poisson",
                    "reaction": 1,
                    "source": f"{rate + 1}*{exact}",
                    "boundary": {
                        "right": {"neumann": slope_x},
                        "left": {"robin": {"coefficient": 2, "value": f"{exact} - {slope_x}/2"}},
                        "all": {"dirichlet": exact},
                    },
                },
                "control": {"kind": "source"},
                "objective": [{"kind": "tracking", "target": exact}, {"kind": "regularisation", "weight": 1e8}],
            }
        )
    )
    assert solution.certificate.state_residual < 1e-8
    assert np.abs(solution.control).max() < 1e-9
    functions = solution.problem.space
    basis = skfem.Basis(functions.domain.mesh, functions.basis.elem, intorder=8)
    misfit = np.asarray(basis.interpolate(solution.state[0])) - value(np.asarray(basis.global_coordinates()))
    return float(np.sqrt((misfit**2 * basis.dx).sum()))


def skewed(kind: str, cells: int) -> skfem.Mesh:
    """The unit square or cube under a smooth map that keeps its sides: cells have right angles only at corners."""
    unit, zero = (1.0,) * 3, (0.0,) * 3
    if kind == "quad":
        mesh = meshes.rectangle(unit[:2], zero[:2], (cells,) * 2, "quadrilateral")
    else:
        mesh = meshes.box(unit, zero, (cells,) * 3, "hexahedron")
    bump = 0.08 * np.prod(np.sin(np.pi * mesh.p), axis=0)
    shift = np.array([1.0, -1.0, 0.7])[: mesh.dim(), None]
    return type(mesh)(mesh.p + bump * shift, mesh.t).with_boundaries(mesh.boundaries)


WAVES: dict[str, tuple[str, Callable[[Points], Points], int]] = {
    "quad": ("sin(2*x+y)", lambda x: np.sin(2 * x[0] + x[1]), 5),
    "hexahedron": ("sin(2*x+y+z)", lambda x: np.sin(2 * x[0] + x[1] + x[2]), 6),
}
SIZES = {
    ("quad", "P1"): (8, 16, 32, 64),
    ("quad", "P2"): (4, 8, 16, 32),
    ("hexahedron", "P1"): (4, 6, 9, 12),
    ("hexahedron", "P2"): (2, 3, 4, 6),
}


@elements
@kinds
def test_manufactured_solutions_converge_at_the_order_of_the_element(kind: str, element: str) -> None:
    shape, cell = {"quad": ("rectangle", "quadrilateral"), "hexahedron": ("box", "hexahedron")}[kind]
    sizes = SIZES[kind, element]
    errors = [state_error({"kind": shape, "cells": n, "cell": cell}, element, *WAVES[kind]) for n in sizes]
    assert slope([1 / n for n in sizes], errors) == pytest.approx(int(element[1]) + 1, abs=0.1)


@elements
@kinds
def test_manufactured_solutions_converge_on_skewed_cells_from_files(kind: str, element: str, tmp_path: Path) -> None:
    sizes, errors = SIZES[kind, element], []
    for n in sizes:
        path = write_mesh(tmp_path / f"skewed_{n}.msh", skewed(kind, n))
        errors.append(state_error({"file": str(path)}, element, *WAVES[kind]))
    assert slope([1 / n for n in sizes], errors) == pytest.approx(int(element[1]) + 1, abs=0.15)


@pytest.mark.parametrize(("element", "order", "cells"), [("P1", 2, (16, 32, 64, 128)), ("P2", 4, (8, 16, 32, 64))])
def test_control_on_quadrilaterals_converges_to_the_spectral_optimum(
    element: str, order: int, cells: tuple[int, ...]
) -> None:
    """A P1 control in either case: of order 2 in the control; its error enters the objective squared."""

    def exact(x: Points) -> Points:
        return np.asarray(SPECTRAL_CONTROL * np.sin(2 * np.pi * x[0]) * np.sin(2 * np.pi * x[1]))

    gaps, errors = [], []
    for n in cells:
        mesh = {"kind": "rectangle", "cells": n, "cell": "quadrilateral"}
        solution = nhgd.solve(nhgd.load({**poisson_control(n, SPECTRAL_TARGET, ALPHA, mesh), "element": element}))
        assert solution.status == "converged"
        gaps.append(abs(solution.objective - SPECTRAL_OBJECTIVE) / SPECTRAL_OBJECTIVE)
        errors.append(control_error(solution, exact))
    assert min(orders(gaps)) >= order - 0.1 and min(orders(errors)) >= 1.9
    assert gaps[-1] <= 5e-4


@elements
def test_outer_iterations_do_not_grow_with_a_mesh_of_quadrilaterals(element: str) -> None:
    """The target is not an eigenfunction, for which a grid of rectangles would take one iteration."""
    counts = []
    for n in (8, 16, 32, 64):
        mesh = {"kind": "rectangle", "cells": n, "cell": "quadrilateral"}
        target = "exp(-20*((x - 0.3)**2 + (y - 0.6)**2))"
        solution = nhgd.solve(nhgd.load({**poisson_control(n, target, 1e-4, mesh), "element": element}))
        assert solution.status == "converged"
        counts.append(solution.stats["outer_iterations"])
    assert max(counts) <= 1.2 * min(counts)


@pytest.mark.parametrize("space_of_control", ["P0", "P1"])
def test_control_on_hexahedra_agrees_with_the_adjoint_and_the_closed_form(space_of_control: str) -> None:
    exact = spectral_optimum(1.0, 3.0 * np.pi**2, 1e-4, 0.125)[1]
    gaps = []
    for n in (8, 12, 16):
        overrides = {"mesh.cells": n, "mesh.cell": "hexahedron", "control.space": space_of_control}
        solution, adjoint = (
            nhgd.solve(nhgd.load("problems/poisson_control_3d.yaml", {**overrides, "method": method}))
            for method in ("nhgd", "adjoint")
        )
        assert (solution.status, adjoint.status) == ("converged", "converged")
        assert solution.objective == pytest.approx(adjoint.objective, rel=1e-6)
        gaps.append(abs(solution.objective - exact) / exact)
    assert slope([1 / 8, 1 / 12, 1 / 16], gaps) == pytest.approx(2.0, abs=0.15)


# Output


@elements
@pytest.mark.parametrize("control", ["P0", "P1"])
@kinds
def test_final_fields_are_in_the_order_of_vtk(tmp_path: Path, kind: str, element: str, control: str) -> None:
    """Cells are boxes: node k of a cell is where VTK's right-handed axes 0 to 1, 0 to 3 and 0 to 4 put it."""
    shape, cell = {"quad": ("rectangle", "quadrilateral"), "hexahedron": ("box", "hexahedron")}[kind]
    dim = {"quad": 2, "hexahedron": 3}[kind]
    mesh = {"kind": shape, "size": [1, 2, 3][:dim], "cells": [3, 2, 2][:dim], "cell": cell}
    problem = {**poisson_control(None, "x + 2*y + z" if dim == 3 else "x + 2*y", 1e-3, mesh), "element": element}
    problem["control"] = {"kind": "source", "space": control}
    solution = nhgd.solve(nhgd.load(problem, {"outer.iterations": 1}), output=tmp_path / "run")
    final = meshio.read(tmp_path / "run" / "final.vtu")
    (block,) = final.cells
    assert block.type == {"P1": kind, "P2": {"quad": "quad9", "hexahedron": "hexahedron27"}[kind]}[element]
    nodes = final.points[block.data][..., :dim]
    steps = np.array([1, 2, 3][:dim]) / np.array([3, 2, 2][:dim])
    assert np.allclose(np.ptp(nodes, axis=1), steps, atol=1e-14)
    axes = nodes[:, [1, 3, 4][:dim]] - nodes[:, :1]
    assert np.allclose(nodes, nodes[:, :1] + VTK[block.type] @ axes, atol=1e-14)
    assert np.allclose(np.abs(np.linalg.det(axes)), np.prod(steps), rtol=1e-13)
    assert dim == 2 or (np.linalg.det(axes) > 0).all()
    assert len(final.points) == solution.problem.space.size
    assert np.array_equal(final.point_data["state"], solution.state[0])
    if control == "P0":
        assert np.allclose(nodes.mean(axis=1).T, solution.problem.control.parts[0].nodes, atol=1e-14)
        assert np.array_equal(final.cell_data["control"][0], solution.control)
    else:
        # The product of the coordinates is in the space of the control.
        product = replace(solution, control=1 + np.prod(solution.problem.control.parts[0].nodes, axis=0))
        shown = product.fields()[1].point["control"]
        assert np.allclose(shown, 1 + np.prod(final.points[:, :dim], axis=1), rtol=1e-13)


@pytest.mark.parametrize("kind", ["quad", "quad9", "hexahedron", "hexahedron27"])
def test_vtk_computes_the_volume_and_interpolates(tmp_path: Path, kind: str) -> None:
    pyvista = pytest.importorskip("pyvista")
    element = "P2" if kind in ("quad9", "hexahedron27") else "P1"
    shape, cell = {"q": ("rectangle", "quadrilateral"), "h": ("box", "hexahedron")}[kind[0]]
    dim = 2 if kind[0] == "q" else 3
    mesh = {"kind": shape, "cells": 2, "cell": cell}
    target = "x*y + 2*y*z" if dim == 3 else "x*y + 2*y"
    problem = {**poisson_control(None, target, 1e-3, mesh), "element": element}
    nhgd.solve(nhgd.load(problem, {"outer.iterations": 1}), output=tmp_path / "run")
    grid = pyvista.read(tmp_path / "run" / "final.vtu")
    assert grid.n_cells == 2**dim
    at = pyvista.PolyData(np.pad(np.random.default_rng(0).uniform(0.1, 0.9, (50, dim)), ((0, 0), (0, 3 - dim))))
    found = at.sample(grid)["target"]
    x, y, z = at.points.T
    assert np.allclose(found, x * y + 2 * y * (z if dim == 3 else 1.0), atol=1e-6)


@pytest.mark.parametrize("on_points", [True, False])
@pytest.mark.parametrize("kind", ["quad", "quad9"])
def test_pictures_draw_quadrilaterals_as_two_triangles(kind: str, on_points: bool) -> None:
    grid = Grid(np.vstack([VTK[kind], VTK[kind] + [1, 0]]), np.arange(2 * len(VTK[kind])).reshape(2, -1), kind)
    values = np.arange(len(grid.points) if on_points else 2, dtype=float)
    data = FieldData(point={"u": values}) if on_points else FieldData(cell={"u": values})
    figure = picture(Pictured(grid, data), ["u"], "two")
    (drawn,) = figure.axes[0].collections
    if on_points:
        triangles = drawn._triangulation
        assert np.array_equal(drawn.get_array(), values)
        corners = grid.points[triangles.triangles]
        doubled = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1]))
        assert len(corners) == 4 and np.allclose(doubled, 1.0)
    else:
        shares = {
            value: sum(0.5 for path, shown in zip(drawn.get_paths(), drawn.get_array(), strict=True) if shown == value)
            for value in values
        }
        assert shares == {0.0: 1.0, 1.0: 1.0}
        lefts = [path.vertices[:, 0].max() <= 1 for path in drawn.get_paths()]
        assert [value == 0.0 for value in drawn.get_array()] == lefts


def test_an_unknown_kind_of_cell_is_refused() -> None:
    with pytest.raises(nhgd.ProblemError, match=r"mesh\.cell.*triangle.*quadrilateral.*'hexahedron'"):
        nhgd.load(poisson_control(None, "x", 1.0, {"kind": "rectangle", "cells": 4, "cell": "hexahedron"}))
