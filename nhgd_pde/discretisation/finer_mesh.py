"""The same problem on a mesh with every edge halved, and functions of the coarse mesh as functions of the fine one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import skfem

from ..building.blueprint import Blueprint
from ..building.domains import onto_boundary
from ..building.frame import Frame
from ..control.controls import ControlSpace
from ..fem.mesh import Domain
from ..fem.mesh import domain as domain_of
from ..fem.nesting import prolongation
from ..fem.refinement import halved
from ..fem.seams import seam
from ..fem.spaces import Space, space
from ..pde_problem import PDEProblem
from ..problem_file.loading import ProblemFile
from .enriched import NoEstimateError, Orders
from .surplus import surplus

# The number of nodes of the fine mesh for which the matrix of the second recovery is in memory at once.
_AT_ONCE = 50_000


@dataclass(frozen=True, eq=False)
class FinerMesh:
    """A problem on the fine mesh, with the maps from functions on the coarse mesh.

    Attributes:
        file: the problem file.
        coarse: the problem on the mesh of the file.
        straight: the fine mesh with its new vertices in the middle of the old edges, whose cells lie in those of the
            coarse mesh.
        domain: the fine mesh; on a disk its new boundary vertices have been moved onto the circle.
    """

    file: ProblemFile
    coarse: PDEProblem
    straight: Domain
    domain: Domain

    @cached_property
    def blueprint(self) -> Blueprint:
        """The fine problem in all scenarios, whose random inputs are those of the coarse one."""
        device = self.coarse.space.device
        frame = Frame(self.file, self.coarse.space.domain, device)
        finer = frame if frame.inputs is not None else None
        return Blueprint(Frame(self.file, self.domain, device, finer=finer))

    @cached_property
    def problem(self) -> PDEProblem:
        """The fine problem; with random inputs the nominal one."""
        return self.blueprint.nominal

    # Functions of the coarse mesh, at all times of an evolution

    def state(self, whole: np.ndarray) -> np.ndarray:
        """(1, N) -> (1, N of the fine problem), a state as a fine function."""
        return self._at_all_times(self._of_state, whole)

    def state_surplus(self, whole: np.ndarray) -> np.ndarray:
        """(1, N) -> (1, N of the fine problem): what a recovery adds to a state; see `surplus`."""
        return self._at_all_times(self._state_surplus, whole)

    # Adjoint variables are functions of the same space.
    adjoint, adjoint_surplus = state, state_surplus

    def second_surpluses(self, state: np.ndarray, adjoint: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(1, N) -> (1, N of the fine problem): what a recovery from wider patches adds to a state and an adjoint.

        Both, and all components of a vector, are recovered together, as the patches take most of the time.
        """
        rows = np.concatenate([each.reshape(-1, self.coarse.space.size) for each in (state, adjoint)])
        parts = self.coarse.space.parts
        starts = np.cumsum([0, *(each.size for each in parts)])
        columns: dict[int, np.ndarray] = {}
        for one in {id(each): each for each in parts}.values():
            alike = [k for k, each in enumerate(parts) if each is one]
            every = np.concatenate([rows[:, starts[k] : starts[k + 1]] for k in alike])
            found = self._wider_surplus(one, every)
            columns.update(zip(alike, np.split(found, len(alike)), strict=True))
        both = np.concatenate([columns[k] for k in range(len(parts))], axis=1)
        return both[: len(both) // 2].reshape(1, -1), both[len(both) // 2 :].reshape(1, -1)

    @cached_property
    def controls(self) -> sp.csr_matrix:
        """(p of the fine problem, p): controls as fine functions, at every time in which they have values."""
        pairs = zip(self.coarse.control.parts, self.problem.control.parts, strict=True)
        blocks = [sp.kron(sp.identity(a.steps or 1), self._of_control(a, b)) for a, b in pairs]
        return sp.csr_matrix(sp.block_diag(blocks, format="csr"))

    @property
    def orders(self) -> Orders:
        """The orders in the width of the mesh, for smooth solutions."""
        degrees = [int(part.space.element[1:]) for part in self.coarse.control.parts if part.space is not None]
        # With a term in the gradient of the control, the square of the error of the gradient is in the objective.
        rough = any(getattr(term, "norm", None) in ("h1", "tv") for term in self.file.spec.objective)
        control = max(min(degrees, default=0) + (not rough), 1)
        return Orders(2 * int(self.coarse.space.element[1:]), 2, 2 * control)

    def _at_all_times(self, matrix: sp.csr_matrix, whole: np.ndarray) -> np.ndarray:
        return np.asarray((matrix @ whole.reshape(-1, self.coarse.space.size).T).T).reshape(1, -1)

    @cached_property
    def _of_state(self) -> sp.csr_matrix:
        """(N of the fine space, N of the coarse space)."""
        return sp.block_diag([self._of_space(each) for each in self.coarse.space.parts], format="csr")

    @cached_property
    def _state_surplus(self) -> sp.csr_matrix:
        """(N of the fine space, N of the coarse space): recovered minus interpolated."""
        return sp.block_diag([self._surplus(each) for each in self.coarse.space.parts], format="csr")

    def _of_control(self, part: ControlSpace, fine: ControlSpace) -> sp.csr_matrix:
        """(fine.columns, part.columns): one control at one time as a fine function."""
        if part.space is None:
            return sp.identity(part.columns, format="csr")
        whole = self._of_space(part.space)[fine.dofs][:, part.dofs]
        # A fine node next to the controlled part may take a share of nodes that are not controlled.
        total = np.asarray(whole.sum(axis=1)).reshape(-1)
        scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0.0)
        return sp.kron(sp.identity(part.components), sp.diags_array(scale) @ whole, format="csr")

    @cached_property
    def _spaces(self) -> dict[int, tuple[Space, Space, sp.csr_matrix]]:
        return {}

    def _of_space(self, coarse: Space) -> sp.csr_matrix:
        return self._nested(coarse)[1]

    def _nested(self, coarse: Space) -> tuple[Space, sp.csr_matrix]:
        """The same space on the fine mesh, and the map to it."""
        if id(coarse) not in self._spaces:
            of_state = self.problem.space.parts if self.domain is self.straight else ()
            known = (each for each in of_state if each.element == coarse.element)
            fine = next(known, None) or space(self.straight, coarse.element, coarse.device)
            self._spaces[id(coarse)] = coarse, fine, prolongation(coarse, fine)
        return self._spaces[id(coarse)][1:]

    @cached_property
    def _surpluses(self) -> dict[int, tuple[Space, sp.csr_matrix]]:
        return {}

    def _surplus(self, coarse: Space) -> sp.csr_matrix:
        if id(coarse) not in self._surpluses:
            fine, transfer = self._nested(coarse)
            own, finest = coarse.on_mesh, fine.on_mesh
            if own is not coarse:
                transfer = prolongation(own, finest)
            found = surplus(own, transfer, finest.nodes, self._labels)
            if coarse.unglued is not None:
                spread = sp.csr_matrix((np.ones(own.size), (np.arange(own.size), coarse.numbers)))
                found = (found @ spread)[fine.representatives]
            self._surpluses[id(coarse)] = coarse, sp.csr_matrix(found)
        return self._surpluses[id(coarse)][1]

    def _wider_surplus(self, coarse: Space, rows: np.ndarray) -> np.ndarray:
        """(times, size) -> (times, size of the fine space), for parts of the nodes at a time: the patches are large."""
        fine, carried = self._nested(coarse)
        own, finest = coarse.on_mesh, fine.on_mesh
        if own is not coarse:
            carried = prolongation(own, finest)
        if coarse.unglued is not None:
            rows = rows[:, coarse.numbers]
        places = finest.nodes
        parts = [slice(k, k + _AT_ONCE) for k in range(0, finest.size, _AT_ONCE)]
        found = [surplus(own, carried[each], places[:, each], self._labels, wider=True) @ rows.T for each in parts]
        whole = np.concatenate(found).T
        return whole if coarse.unglued is None else whole[:, fine.representatives]

    @cached_property
    def _labels(self) -> np.ndarray:
        """(cells,) equal numbers for the coarse cells that belong to the same subdomains."""
        domain = self.coarse.space.domain
        found = np.zeros(domain.mesh.nelements, dtype=int)
        for cells in domain.subdomains.values():
            found *= 2
            found[cells] += 1
            found = np.unique(found, return_inverse=True)[1]
        return found


def finer_mesh(file: ProblemFile, coarse: PDEProblem) -> FinerMesh:
    """The problem of a file on the refined mesh.

    Raises:
        NoEstimateError: the mesh has curved cells, which are not refined.
    """
    domain = coarse.space.domain
    if domain.curved is not None:
        raise NoEstimateError("the mesh has curved cells, which are not refined; take `geometry: straight`")
    straight = _halved(domain)
    moved, onto = straight, onto_boundary(file.spec.mesh)
    if onto is not None:
        outer = np.unique(straight.mesh.facets[:, straight.mesh.boundary_facets()])
        new, vertices = outer[outer >= domain.mesh.nvertices], np.array(straight.mesh.p)
        vertices[:, new] = onto(vertices[:, new])
        moved = _with_vertices(straight, vertices)
    return FinerMesh(file, coarse, straight, moved)


def _halved(domain: Domain) -> Domain:
    """The domain with every edge halved, with its names and its periodic sides."""
    names = {name: each for name, each in domain.facets.items() if name != "all"}
    mesh, facets, subdomains = halved(domain.mesh, names, domain.subdomains)
    fine = domain_of(mesh)
    inside = {name: facets[name] for name in domain.inside if name in facets}
    outer = {name: facets[name] for name in domain.boundaries if name in facets}
    found = replace(fine, boundaries={**outer, "all": fine.boundaries["all"]}, subdomains=subdomains, inside=inside)
    pairs = [(each, each.names) for each in domain.seams]
    return found.glued([seam(mesh, both, facets[both[0]], facets[both[1]]) for _, both in pairs]) if pairs else found


def _with_vertices(domain: Domain, vertices: np.ndarray) -> Domain:
    """The same mesh with its vertices in other places (dim, count)."""
    mesh: skfem.Mesh = type(domain.mesh)(vertices, domain.mesh.t)
    return replace(domain, mesh=mesh)
