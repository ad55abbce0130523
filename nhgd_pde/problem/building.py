"""From a checked problem file to the objects it stands for: mesh, spaces, equation, control, objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..control import ControlSpace, source_control
from ..fem import mesh as meshes
from ..fem.evaluation import Evaluation
from ..fem.mesh import Domain
from ..fem.spaces import Space, space
from ..inner.energy import energy_model
from ..inner.model import InnerModel, Observation
from ..inner.residual import residual_model
from ..linalg.counts import Counts
from ..linalg.factorisation import factorised_riesz_map
from ..linalg.riesz import RieszMap, diagonal_riesz_map, mass_riesz_map
from ..linalg.sparse import SparseMatrix
from ..objective import Objective, Regularisation, Tracking
from ..pde.equation import StateEquation
from ..pde.form import Integral
from ..pde.poisson import neumann, robin
from ..pde_problem import PDEProblem
from .equations import interior
from .errors import ProblemError, suggest
from .loading import ProblemFile
from .schema import BoxMesh, DiskMesh, FileMesh, IntervalMesh, LShapeMesh, RectangleMesh, TrackingTerm
from .values import Values, point_text

Role = Literal["inner", "curvature"]


def build(file: ProblemFile, role: Role = "inner") -> PDEProblem:
    """Build the problem that a file describes, on the device of a role.

    Raises:
        ProblemError: names that the mesh does not have, coefficients out of range, a device that is not
            there, ...; every mistake that can be found without the others mended.
    """
    device = build_device(file, role)
    return build_on(file, build_domain(file), device)


def build_on(file: ProblemFile, domain: Domain, device: torch.device) -> PDEProblem:
    """The same on a mesh in memory, whatever the file says of its mesh."""
    return _Builder(file, device, Values(file, domain, device)).build(domain)


def build_device(file: ProblemFile, role: Role = "inner") -> torch.device:
    """The device of a role. `auto` is the CPU, where the factorisations are."""
    names = {"inner": file.spec.devices.inner, "curvature": file.spec.devices.curvature}
    name = "cpu" if names[role] == "auto" else names[role]
    device = torch.device(name)
    there = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= there:
        message = f"expected a device of this machine, found {name!r}: it has {there} CUDA devices"
        raise file.error(f"devices.{role}", message)
    return device


def build_domain(file: ProblemFile) -> Domain:
    """Make or read the mesh."""
    spec = file.spec.mesh
    match spec:
        case IntervalMesh():
            mesh = meshes.interval(spec.size[0], spec.origin[0], spec.cells[0])
        case RectangleMesh():
            mesh = meshes.rectangle(spec.size, spec.origin, spec.cells, spec.cell)
        case BoxMesh():
            mesh = meshes.box(spec.size, spec.origin, spec.cells, spec.cell)
        case DiskMesh():
            mesh = meshes.disk(spec.size, spec.origin, spec.refine)
            return meshes.domain(mesh)
        case LShapeMesh():
            mesh = meshes.l_shape(spec.size, spec.origin, spec.refine)
            return meshes.domain(mesh)
        case FileMesh():
            path = file.resolve(spec.file)
            if path is None:
                raise file.error("mesh.file", f"expected a mesh file, found nothing at {spec.file!r}")
            try:
                mesh = meshes.read_mesh(path)
            except meshes.MeshFileError as error:
                raise file.error("mesh.file", str(error)) from None
    return meshes.domain(mesh, spec.refine)


@dataclass
class _Builder:
    """Builds the parts in order, and collects mistakes on the way."""

    file: ProblemFile
    device: torch.device
    values: Values
    counts: Counts = field(default_factory=Counts)

    def build(self, domain: Domain) -> PDEProblem:
        spec = self.file.spec
        state = space(domain, spec.element, self.device)
        control_space = state
        if spec.control.space != spec.element:
            control_space = space(domain, spec.control.space, self.device, like=state)
        x = state.cells.quadrature.x.reshape(domain.dim, -1)

        facets = self._boundary_facets(domain)
        lift, free = self._dirichlet(state, facets)
        cells = interior(self.values, spec.pde, x)
        control = self._control(domain, control_space)
        gain = self.values.formula("control.gain", spec.control.gain, x)
        # Zero outside the region where the control acts: its functions at the edge reach beyond.
        coefficients = {**cells.coefficients, "gain": self.values.tensor(gain) * control.region.reshape(-1)}
        boundary, absorbing, boundary_coercive = self._boundary_integrals(state, facets)
        objective, fields = self._objective(domain, state, control)
        if not self.values.issues:
            self._well_posed(free, state, absorbing or cells.absorbing)
        if self.values.issues:
            raise ProblemError(self.values.issues)

        integral = Integral(state.cells, cells.form, coefficients, source_control, control.cells)
        equation = StateEquation(
            (integral, *boundary),
            state.size,
            control.size,
            free,
            lift,
            affine=cells.affine,
            symmetric=cells.symmetric,
            counts=self.counts,
        )
        model = self._model(state, equation, cells.symmetric and cells.coercive and boundary_coercive)
        return PDEProblem(spec.name, state, equation, control, objective, model, fields)

    def _boundary_facets(self, domain: Domain) -> dict[str, np.ndarray]:
        """The facets of every condition; `all` stands for those that no other condition names."""
        conditions = self.file.spec.pde.boundary
        facets = {}
        for name in conditions:
            if name not in domain.boundaries:
                known = ", ".join(sorted(domain.boundaries))
                hint = suggest(name, domain.boundaries)
                self.values.complain(f"pde.boundary.{name}", f"unknown boundary {name!r}{hint}; this mesh has: {known}")
                continue
            facets[name] = domain.boundaries[name]
        if "all" in facets:
            named = [facets[name] for name in facets if name != "all"]
            facets["all"] = np.setdiff1d(facets["all"], np.concatenate(named)) if named else facets["all"]
        return facets

    def _dirichlet(self, state: Space, facets: dict[str, np.ndarray]) -> tuple[Tensor, np.ndarray]:
        """Lift (N,) and indices of the free coefficients."""
        values = np.zeros(state.size)
        fixed = np.zeros(state.size, dtype=bool)
        for name, indices in facets.items():
            condition = self.file.spec.pde.boundary[name]
            if condition.dirichlet is not None:
                dofs = state.facet_dofs(indices)
                key = f"pde.boundary.{name}.dirichlet"
                values[dofs] = self.values.formula(key, condition.dirichlet, state.nodes[:, dofs])
                fixed[dofs] = True
        free = np.flatnonzero(~fixed)
        if not len(free):
            self.values.complain("mesh", "every node of the mesh has a Dirichlet value: use more cells")
        return self.values.tensor(values), free

    def _boundary_integrals(self, state: Space, facets: dict[str, np.ndarray]) -> tuple[list[Integral], bool, bool]:
        """Integrals over the boundary; whether one fixes the level of u; whether all have positive energy."""
        integrals, absorbing, coercive = [], False, True
        for name, indices in facets.items():
            condition = self.file.spec.pde.boundary[name]
            if condition.dirichlet is not None or not len(indices):
                continue
            evaluation = state.facets(indices)
            x = evaluation.quadrature.x.reshape(state.domain.dim, -1)
            key = f"pde.boundary.{name}"
            if condition.neumann is not None:
                flux = self.values.formula(f"{key}.neumann", condition.neumann, x)
                integrals.append(Integral(evaluation, neumann, {"flux": self.values.tensor(flux)}))
            elif condition.robin is not None:
                transfer = self.values.formula(f"{key}.robin.coefficient", condition.robin.coefficient, x)
                value = self.values.formula(f"{key}.robin.value", condition.robin.value, x)
                data = {"coefficient": self.values.tensor(transfer), "value": self.values.tensor(value)}
                integrals.append(Integral(evaluation, robin, data))
                absorbing = absorbing or bool((transfer != 0.0).any())
                coercive = coercive and bool((transfer >= 0.0).all())
        return integrals, absorbing, coercive

    def _well_posed(self, free: np.ndarray, state: Space, absorbing: bool) -> None:
        if len(free) == state.size and not absorbing:
            message = "no Dirichlet or Robin condition and no reaction: u is determined up to a constant only"
            self.values.complain("pde.boundary", message)

    def _control(self, domain: Domain, control_space: Space) -> ControlSpace:
        spec = self.file.spec.control
        dofs = np.arange(control_space.size)
        if spec.on is not None:
            before = len(self.values.issues)
            cells = self.values.subdomain("control.on", spec.on)
            dofs = control_space.cell_dofs(cells) if len(cells) else dofs
            if not len(cells) and len(self.values.issues) == before:
                self.values.complain("control.on", f"subdomain {spec.on!r} has no cells: the control is empty")
        evaluation = control_space.cells.columns(dofs)
        known = spec.on is None or spec.on in domain.subdomains
        weight = self.values.indicator("control.on", spec.on if known else None, control_space.cells)
        region = self.values.tensor(weight.reshape(evaluation.quadrature.weights.shape))[None]
        mass = SparseMatrix(evaluation.assemble(evaluation, {(0, 0): region}, True).host(), self.device, True)

        nodes = control_space.nodes[:, dofs]
        initial = self.values.formula("control.initial", spec.initial, nodes)
        bounds = [
            np.full(len(dofs), sign * np.inf)
            if bound is None
            else self.values.formula(f"control.bounds.{i}", bound, nodes)
            for i, (bound, sign) in enumerate(zip(spec.bounds, (-1.0, 1.0), strict=True))
        ]
        bounded = any(bound is not None for bound in spec.bounds)
        crossed = np.flatnonzero(bounds[0] > bounds[1])
        if len(crossed):
            k = int(crossed[0])
            values = f"found lower {bounds[0][k]:g} above upper {bounds[1][k]:g} at {point_text(nodes, k)}"
            self.values.complain("control.bounds", f"expected lower <= upper, {values}")
        riesz = self._control_metric(evaluation, mass, region, bounded)
        lower, upper = (self.values.tensor(bound) for bound in bounds) if bounded else (None, None)
        return ControlSpace(control_space, dofs, evaluation, riesz, self.values.tensor(initial), lower, upper, region)

    def _control_metric(self, evaluation: Evaluation, mass: SparseMatrix, region: Tensor, bounded: bool) -> RieszMap:
        """L2; lumped with bounds, where projection acts node by node; H1 where the gradient is penalised."""
        spec = self.file.spec
        smooth = any(
            not isinstance(term, TrackingTerm) and term.norm == "h1" and term.weight > 0 for term in spec.objective
        )
        if bounded:
            weights = torch.from_numpy(np.asarray(mass.host.sum(axis=1)).reshape(-1)).to(self.device)
            lumped = SparseMatrix(_diagonal(weights), self.device, symmetric=True)
            return diagonal_riesz_map(weights, lumped)
        if spec.control.space == "P0":
            return diagonal_riesz_map(mass.diagonal(), mass)
        if smooth:
            blocks = {(i, i): region for i in range(evaluation.components)}
            gram = SparseMatrix(evaluation.assemble(evaluation, blocks, True).host(), self.device, True)
            return factorised_riesz_map(gram, Counts())
        return mass_riesz_map(mass, self.counts)

    def _objective(
        self, domain: Domain, state: Space, control: ControlSpace
    ) -> tuple[Objective, dict[str, np.ndarray]]:
        tracking, regularisation = [], []
        fields: dict[str, np.ndarray] = {}
        for k, term in enumerate(self.file.spec.objective):
            key = f"objective.{k}"
            if isinstance(term, TrackingTerm):
                target = self.values.formula(f"{key}.target", term.target, state.nodes)
                region = self.values.indicator(f"{key}.on", term.on, state.cells)
                weights = self.values.tensor(term.weight * region.reshape(state.cells.quadrature.weights.shape))[None]
                mass = state.cells.assemble(state.cells, {(0, 0): weights}, symmetric=True).host()
                tracking.append(Tracking(SparseMatrix(mass, self.device, symmetric=True), self.values.tensor(target)))
                fields["target" if "target" not in fields else f"target_{k}"] = target
            else:
                if term.norm == "h1" and control.space.element == "P0":
                    self.values.complain(
                        f"{key}.norm", "expected l2 for a P0 control, which has no gradient, found 'h1'"
                    )
                    continue
                reference = self.values.formula(
                    f"{key}.reference", term.reference, control.space.nodes[:, control.dofs]
                )
                components = range(1, control.cells.components) if term.norm == "h1" else range(1)
                blocks = {(i, i): term.weight * control.region for i in components}
                gram = control.cells.assemble(control.cells, blocks, symmetric=True).host()
                matrix = SparseMatrix(gram, self.device, symmetric=True)
                regularisation.append(Regularisation(matrix, self.values.tensor(reference)))
        return Objective(tuple(tracking), tuple(regularisation)), fields

    def _model(self, state: Space, equation: StateEquation, coercive: bool) -> InnerModel:
        spec = self.file.spec.inner
        noise = None if spec.noise == "matched" else float(spec.noise)
        observation = Observation(self.file.spec.curvature.scores, noise)
        if spec.model == "energy" and not coercive:
            lack = "self-adjoint and coercive" if equation.affine else "linear"
            message = f"expected auto or residual, found 'energy': the equation is not {lack}, as the energy form needs"
            raise self.file.error("inner.model", message)
        if coercive and spec.model != "residual":
            return energy_model(equation, observation)
        return residual_model(state, equation, observation)


def _diagonal(weights: Tensor) -> object:
    import scipy.sparse as sp

    return sp.diags_array(weights.cpu().numpy()).tocsr()
