"""From the `objective` section to its terms in the controls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from ..control.controls import Controls, ControlSpace
from ..fem.state_space import StateSpace
from ..linalg.sparse import SparseMatrix
from ..objective.terms import ControlTerm, LinearControl, Regularisation, TotalVariation
from ..problem_file.expressions import Expression
from ..problem_file.objective_spec import LinearControlTerm, RegularisationTerm
from .clock import Clock
from .values import Values


@dataclass
class ControlTermBuilder:
    """Makes the terms one after the other; `l1_weights` grows by l1 terms, which the outer methods take as such.

    Attributes:
        values: evaluates expressions and collects mistakes.
        state: the state space.
        controls: the discrete controls.
        clock: the times of an evolution; None of a steady problem.
        l1_weights: (p,) weights of |v|; None without such terms.
    """

    values: Values
    state: StateSpace
    controls: Controls
    clock: Clock | None
    l1_weights: Tensor | None = None

    def _parts(self, key: str, name: str | None) -> list[tuple[int, ControlSpace]]:
        """The controls that a term is about, each with its first entry in v."""
        found = [
            (first, part)
            for first, part in zip(self.controls.rows.offsets, self.controls.parts, strict=False)
            if name is None or part.name == name
        ]
        if not found:
            known = ", ".join(part.name for part in self.controls.parts)
            self.values.complain(f"{key}.control", f"expected the name of a control ({known}), found {name!r}")
        return found

    def _spread(self, first: int, part: ControlSpace, one: sp.csr_matrix) -> sp.csr_matrix:
        """A matrix of one time step of a control as one (p, p) of all controls."""
        whole = one if part.rule is None else sp.kron(sp.diags_array(part.rule.weights), one)
        before, after = first, self.controls.size - first - part.size
        return sp.block_diag([sp.csr_matrix((before, before)), whole, sp.csr_matrix((after, after))], format="csr")

    def regularisation(self, key: str, term: RegularisationTerm) -> list[ControlTerm]:
        found: list[ControlTerm] = []
        for first, part in self._parts(key, term.control):
            numbers = part.space is None
            element = "P0" if part.space is not None and part.space.element == "P0" else ""
            points = part.boundary and self.state.domain.dim == 1
            if numbers:
                self.values.number(f"{key}.reference", term.reference)
            if term.norm in ("h1", "tv") and (numbers or element == "P0" or points):
                kind = (
                    "a P0 control" if element == "P0" else "a control of numbers" if numbers else "a control of points"
                )
                message = f"expected l2 or l1 for {kind}, which has no gradient, found {term.norm!r}"
                self.values.complain(f"{key}.norm", message)
                continue
            if term.norm in ("l1", "tv"):
                reference = self._reference(f"{key}.reference", term, first, part)
                if bool(reference.any()):
                    self.values.complain(f"{key}.reference", f"expected 0, the only one of norm {term.norm}")
                if term.norm == "l1":
                    self._absolute(key, term, first, part)
                else:
                    found += self._variation(key, term, part)
                continue
            if numbers:
                gram = term.weight * sp.identity(part.columns, format="csr")
            else:
                blocks = {
                    (i, i): term.weight * part.weight
                    for i in range(part.evaluation.components)
                    if (i % part.evaluation.stride == 0) == (term.norm == "l2")
                }
                gram = part.evaluation.assemble(part.evaluation, blocks, symmetric=True).host()
            matrix = SparseMatrix(self._spread(first, part, gram), self.state.device, symmetric=True)
            found.append(Regularisation(matrix, self._reference(f"{key}.reference", term, first, part)))
        return found

    def _absolute(self, key: str, term: RegularisationTerm, first: int, part: ControlSpace) -> None:
        """weight int |v| with the lumped mass matrix, which is the part's inner product."""
        if part.filter is not None:
            self.values.complain(f"{key}.norm", "expected l2, h1 or tv for a filtered density, found 'l1'")
        if self.l1_weights is None:
            self.l1_weights = self.values.tensor(np.zeros(self.controls.size))
        mass = part.riesz.matrix.diagonal()
        if part.rule is not None:
            mass = (self.values.tensor(part.rule.weights)[:, None] * mass).reshape(-1)
        self.l1_weights[first : first + part.size] += term.weight * mass

    def _variation(self, key: str, term: RegularisationTerm, part: ControlSpace) -> list[ControlTerm]:
        if part.evaluation.quadrature.x.shape != self.state.cells.quadrature.x.shape:
            self.values.complain(f"{key}.norm", "expected l2, h1 or l1 for a control of the boundary, found 'tv'")
            return []
        rows = self.controls.rows
        evaluation = part.evaluation.shifted(rows.column_offsets[self.controls.parts.index(part)], rows.width)
        # Where other controls vary in time, one that stands still has equal rows, which count once together.
        copies = self.controls.steps if part.steps is None and any(rows.varying) else 1
        weight = term.weight * part.measure / copies * part.weight.reshape(-1)
        return [TotalVariation(rows, evaluation, weight, term.smoothing)]

    def _times(self, key: str, value: Expression | tuple[Expression, ...], part: ControlSpace) -> np.ndarray | None:
        """Times at which an expression for a control is taken; a control that does not vary takes none in t."""
        if self.clock is None:
            return None
        if part.rule is None:
            self.values.constant_in_time(key, value)
            return np.zeros(1)
        return part.rule.times

    def _reference(self, key: str, term: RegularisationTerm, first: int, part: ControlSpace) -> Tensor:
        times = self._times(key, term.reference, part)
        nodes = part.nodes[:, : part.columns // part.components]
        given = self.values.components(key, term.reference, part.components, nodes, times)
        copies = part.steps or 1
        own = np.broadcast_to(given, (part.components, copies, nodes.shape[1])).swapaxes(0, 1).reshape(-1)
        whole = np.zeros(self.controls.size)
        whole[first : first + part.size] = own
        return self.values.tensor(whole)

    def linear(self, key: str, term: LinearControlTerm) -> list[ControlTerm]:
        found: list[ControlTerm] = []
        for first, part in self._parts(key, term.control):
            x = part.evaluation.quadrature.flat
            times = self._times(f"{key}.weight", term.weight, part)
            weight = np.atleast_2d(self.values.formula(f"{key}.weight", term.weight, x, times))
            if part.space is None:
                self.values.number(f"{key}.weight", term.weight)
                one = np.broadcast_to(weight.mean(axis=1, keepdims=True), (len(weight), part.columns))
            else:
                density = np.zeros((part.evaluation.components, *weight.shape))
                density[:: part.evaluation.stride] = weight * part.weight.cpu().numpy().reshape(-1)
                one = part.evaluation.test(self.values.tensor(density)).cpu().numpy()
            whole = np.zeros(self.controls.size)
            if part.rule is not None:
                one = np.broadcast_to(one, (len(part.rule.times), part.columns))
                one = part.rule.weights[:, None] * one
            whole[first : first + part.size] = one.reshape(-1)
            found.append(LinearControl(self.values.tensor(whole)))
        return found
