"""Set-up of large meshes: facets, functions and patterns equal scikit-fem's, and what is kept in memory is counted."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import skfem
import torch
from skfem.models.poisson import laplace, mass

import nhgd_pde as nhgd
from nhgd_pde.fem.counting import first_of_equal, lexical_order
from nhgd_pde.fem.evaluation_operator import EvaluationOperator
from nhgd_pde.fem.facet_tables import with_facets
from nhgd_pde.fem.mesh import domain
from nhgd_pde.fem.pattern import Pattern, _slots, _symmetric_slots
from nhgd_pde.fem.spaces import space
from problems import CPU

KINDS = {
    "line": skfem.MeshLine,
    "triangle": skfem.MeshTri,
    "quad": skfem.MeshQuad,
    "tetra": skfem.MeshTet,
    "hexahedron": skfem.MeshHex,
}
every_kind = pytest.mark.parametrize("kind", list(KINDS))


def mesh_of(kind: str, cells: int = 3) -> skfem.Mesh:
    """A grid whose cells and vertices have random numbers, with its inner vertices moved."""
    generator = np.random.default_rng(5)
    grid = KINDS[kind].init_tensor(*[np.linspace(0.0, 1.0, cells + 1)] * KINDS[kind].elem.refdom.dim())
    inner = np.setdiff1d(np.arange(grid.nvertices), grid.boundary_nodes())
    p = grid.p.copy()
    p[:, inner] += generator.uniform(-0.1, 0.1, (len(p), len(inner))) / cells
    number = generator.permutation(grid.nvertices)
    order = np.argsort(number)
    return KINDS[kind](p[:, order], number[grid.t][:, generator.permutation(grid.nelements)])


def test_counting_sorts_as_comparing_does() -> None:
    columns = np.random.default_rng(1).integers(0, 7, (3, 500))
    order = lexical_order(columns, 7)
    assert np.array_equal(order, np.lexsort(columns[::-1]))
    assert first_of_equal(columns[:, order]).sum() == np.unique(columns, axis=1).shape[1]


@every_kind
def test_facets_are_those_of_scikit_fem(kind: str) -> None:
    mesh = mesh_of(kind)
    mine = with_facets(type(mesh)(mesh.p, mesh.t))
    assert "_f2t" not in vars(type(mesh)(mesh.p, mesh.t))
    for table in ("facets", "t2f", "f2t"):
        assert np.array_equal(getattr(mine, table), getattr(mesh, table))
    assert np.array_equal(mine.boundary_facets(), mesh.boundary_facets())


def test_a_facet_of_three_cells_has_the_first_and_the_last_of_them() -> None:
    p = np.array([[0.0, 1.0, 0.0, 1.0, 0.4], [0.0, 0.0, 1.0, 1.0, 0.9]])
    t = np.array([[1, 2, 0], [1, 2, 3], [1, 2, 4]]).T
    mesh = skfem.MeshTri(p, t)
    mine = with_facets(skfem.MeshTri(p, t))
    for table in ("facets", "t2f", "f2t"):
        assert np.array_equal(getattr(mine, table), getattr(mesh, table))


@every_kind
@pytest.mark.parametrize("element", ["P0", "P1", "P2"])
def test_functions_are_those_of_scikit_fem(kind: str, element: str) -> None:
    functions = space(domain(mesh_of(kind)), element, CPU)
    mesh, basis = functions.domain.mesh, functions.basis
    own = skfem.Basis(mesh, basis.elem, quadrature=basis.quadrature)
    cells = functions.cells
    assert np.allclose(functions.basis.doflocs, own.doflocs, rtol=0, atol=1e-14)
    assert np.array_equal(cells.dofs.T, own.element_dofs)
    assert np.allclose(cells.quadrature.x, own.global_coordinates(), rtol=0, atol=1e-14)
    assert np.allclose(cells.quadrature.weights, own.dx, rtol=1e-13, atol=0)
    for i in range(own.Nbfun):
        field = own.basis[i][0]
        for table, wanted in zip(cells.tables, [np.asarray(field), *field.grad], strict=True):
            assert np.allclose(table[:, :, i].expand(wanted.shape), wanted, rtol=0, atol=1e-12)
    facets = mesh.boundary_facets()[::3]
    assert np.array_equal(functions.facet_dofs(facets), np.sort(own.get_dofs(facets).all()))
    inner = np.flatnonzero(mesh.f2t[1] >= 0)[::5]
    assert np.array_equal(functions.facet_dofs(inner), np.sort(own.get_dofs(inner).all()))


@every_kind
def test_values_on_the_cells_are_stored_once_and_gradients_on_simplices_per_cell(kind: str) -> None:
    functions = space(domain(mesh_of(kind)), "P1", CPU).cells
    value, *gradients = functions.tables
    assert value.untyped_storage().nbytes() == 8 * value[0].numel()
    if kind in ("line", "triangle", "tetra"):
        assert all(gradient.shape[1] == 1 for gradient in gradients)


@every_kind
@pytest.mark.parametrize("left_out", [0, 3])
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_a_symmetric_pattern_is_that_of_sorting_all_pairs(kind: str, element: str, left_out: int) -> None:
    cells = space(domain(mesh_of(kind, 4)), element, CPU).cells
    if left_out:
        cells = cells.columns(np.setdiff1d(np.arange(cells.size), np.arange(0, cells.size, left_out)))
    found = _symmetric_slots(cells.dofs, cells.size)
    assert found is not None
    (pointers, columns), slots = found
    (other_pointers, other_columns), other_slots = _slots(cells.dofs, cells.dofs, (cells.size, cells.size))
    assert np.array_equal(pointers, other_pointers)
    assert np.array_equal(columns, other_columns)
    assert np.array_equal(slots, other_slots)


def test_a_function_twice_in_an_element_is_assembled_twice() -> None:
    cells = space(domain(mesh_of("triangle")), "P1", CPU).cells
    folded = EvaluationOperator(cells.tables, np.minimum(cells.dofs, 3), 4, cells.quadrature)
    one = {(0, 0): torch.ones_like(cells.quadrature.weights)[None]}
    sums = sp.csr_matrix(
        (np.ones(cells.size), (np.minimum(np.arange(cells.size), 3), np.arange(cells.size))), shape=(4, cells.size)
    )
    wanted = sums @ cells.assemble(cells, one).host() @ sums.T
    assert np.allclose(folded.assemble(folded, one).host().toarray(), wanted.toarray(), rtol=1e-13, atol=0)


def test_matrices_of_many_groups_of_elements_are_those_of_scikit_fem() -> None:
    """Element matrices are computed for groups of elements; here there are several groups."""
    functions = space(domain(skfem.MeshTet.init_tensor(*[np.linspace(0.0, 1.0, 19)] * 3)), "P1", CPU)
    cells, basis = functions.cells, skfem.Basis(functions.domain.mesh, functions.basis.elem, intorder=2)
    factor = torch.from_numpy(np.random.default_rng(2).uniform(1.0, 2.0, basis.dx.shape))[None]
    form = skfem.BilinearForm(lambda u, v, w: w.factor * (skfem.helpers.dot(u.grad, v.grad) + u * v.grad[0] + u * v))
    blocks = {(i, i): factor for i in range(4)} | {(1, 0): factor}
    found = cells.assemble(cells, blocks).host()
    wanted = form.assemble(basis, factor=factor[0].numpy())
    assert abs(found - wanted).max() < 1e-13 * abs(wanted).max()
    one = torch.ones(1).expand(1, *basis.dx.shape)
    for chosen, known in (({(i, i): one for i in (1, 2, 3)}, laplace), ({(0, 0): one}, mass)):
        wanted = known.assemble(basis)
        assert abs(cells.assemble(cells, chosen, symmetric=True).host() - wanted).max() < 1e-13 * abs(wanted).max()


def held(root: object) -> Iterator[object]:
    """Everything that an object refers to: attributes, members, variables of functions."""
    seen: dict[int, object] = {}
    left = [root]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, type | types.ModuleType):
            continue
        seen[id(each)] = each
        yield each
        if isinstance(each, dict):
            left += each.values()
        elif isinstance(each, list | tuple | set | frozenset):
            left += each
        elif isinstance(each, types.FunctionType):
            left += [cell.cell_contents for cell in each.__closure__ or ()]
        elif isinstance(each, types.MethodType):
            left.append(each.__self__)
        elif isinstance(each, torch.Tensor):
            if each.layout == torch.sparse_csr:
                left += [each.crow_indices(), each.col_indices(), each.values()]
        elif not isinstance(each, np.ndarray):
            left += vars(each).values() if hasattr(each, "__dict__") else []
            left += [getattr(each, name) for name in ("func", "args", "keywords") if hasattr(each, name)]


def bytes_of(root: object) -> int:
    """The bytes of all arrays and tensors that an object refers to, each memory counted once."""
    found: dict[int, int] = {}
    for each in held(root):
        if isinstance(each, torch.Tensor) and each.layout == torch.strided:
            found[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
        elif isinstance(each, np.ndarray):
            whole = each
            while isinstance(whole.base, np.ndarray):
                whole = whole.base
            found[whole.__array_interface__["data"][0]] = whole.nbytes
    return sum(found.values())


def problem(dim: int, **sections: Any) -> nhgd.Problem:
    cells = {2: 40, 3: 12}[dim]
    base: dict[str, Any] = {
        "name": "counted",
        "mesh": {"kind": {2: "rectangle", 3: "box"}[dim], "size": [1] * dim, "cells": [cells] * dim},
        "pde": {"kind": "poisson", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source"},
        "objective": [{"kind": "tracking", "target": "x*y"}, {"kind": "regularisation", "weight": 1e-4}],
    }
    return nhgd.load(base | sections)


@pytest.mark.parametrize(("dim", "most"), [(2, 440), (3, 455)])
def test_the_memory_of_a_problem_is_counted_for_each_cell(dim: int, most: int) -> None:
    """Bytes for each cell before the first solve: tables, facets, pattern, and the matrices of equation and terms."""
    loaded = problem(dim)
    assert bytes_of(loaded) < most * loaded.pde.space.domain.mesh.nelements


@pytest.mark.parametrize("dim", [2, 3])
def test_state_control_and_terms_share_one_pattern(dim: int) -> None:
    patterns = [each for each in held(problem(dim)) if isinstance(each, Pattern)]
    assert len(patterns) == 1


@pytest.mark.parametrize("dim", [2, 3])
def test_the_mass_matrix_is_in_memory_once(dim: int) -> None:
    """The inner product of the control and a tracking term with the weight one share it."""
    loaded = problem(dim)
    (term,) = loaded.pde.objective.state
    mass_of_control, mass_of_term = loaded.pde.control.riesz.matrix.host, term.mass.host
    assert np.shares_memory(mass_of_control.data, mass_of_term.data)
    assert np.shares_memory(mass_of_control.indices, loaded.pde.objective.control[0].gram.host.indices)


def test_constant_coefficients_are_one_number_in_memory() -> None:
    loaded = problem(3, pde={"kind": "poisson", "conductivity": 2, "source": 1, "boundary": {"all": {"dirichlet": 0}}})
    for name, values in loaded.pde.equation.integrals[0].coefficients.items():
        assert values.untyped_storage().nbytes() == 8, name
