"""Coefficients of the state that are not unknowns but given, as functions of controls: Dirichlet and initial values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..linalg.sparse import SparseMatrix
from .derivatives import gradient_along, gradient_of, leaves
from .ranges import Guard


@dataclass(frozen=True, eq=False)
class ParameterData:
    """Given coefficients that are functions of a few controls, each of which is one number.

    Attributes:
        columns: (k,) the entries of these controls in v.
        indices: (M,) the coefficients, among all N of the state.
        function: numbers, each (1, 1) or (1, M) -> the coefficients, (1 or S, M).
        controls: p, the number of entries of v.
        guard: the ranges of the coefficients.
    """

    columns: tuple[int, ...]
    indices: Tensor
    function: Callable[[Sequence[Tensor]], Tensor]
    controls: int
    guard: Guard

    def after(self, first: int) -> ParameterData | None:
        """The same without those of the first coefficients; None where none is left."""
        kept = self.indices >= first
        if bool(kept.all()) or not bool(kept.any()):
            return self if bool(kept.any()) else None
        whole = self.function
        return replace(self, indices=self.indices[kept], function=lambda numbers: whole(numbers)[:, kept])

    def refusal(self, v: Tensor) -> str:
        """A sentence on a coefficient that is not admissible at v; empty where all are admissible."""
        with torch.enable_grad():
            numbers, values = self._spread(v)
            after = dict.fromkeys(self.guard.keys, values)
            said = self.guard.refusal({}, after)
            return said or next((said for each in numbers if (said := self.guard.steep({}, after, each))), "")

    def guarded_values(self, v: Tensor) -> dict[str, Tensor]:
        """The coefficients (n,) by their key in the problem file."""
        return dict.fromkeys(self.guard.keys.values(), self.values(v).detach().reshape(-1))

    def values(self, v: Tensor) -> Tensor:
        """The coefficients (1 or S, M)."""
        return self.function([v[k].reshape(1, 1) for k in self.columns])

    def derivatives(self, v: Tensor) -> Tensor:
        """(k, 1 or S, M) the derivatives of every coefficient by every number."""
        if not (self._last and torch.equal(self._last[0][0], v)):
            # Every coefficient has its own copies of the numbers, so that one backward pass is enough.
            shape = self.values(v).shape
            copies = tuple(v[k].expand(shape) for k in self.columns)
            found = gradient_of(lambda *numbers: self.function(numbers).sum(), copies)
            self._last[:] = [(v.clone(), torch.stack(found))]
        return self._last[0][1]

    @cached_property
    def _last(self) -> list[tuple[Tensor, Tensor]]:
        return []

    def _spread(self, v: Tensor) -> tuple[list[Tensor], Tensor]:
        """The numbers and the coefficients, with copies of every number so that one backward pass is enough."""
        shape = self.values(v).shape
        numbers = leaves([v[k].expand(shape) for k in self.columns])
        return numbers, self.function(numbers)

    def mv(self, v: Tensor, d: Tensor) -> Tensor:
        """The change (1 or S, M) of the coefficients for a change d (p,) of the controls."""
        return torch.einsum("ksm,k->sm", self.derivatives(v), d[list(self.columns)])

    def rmv(self, v: Tensor, covector: Tensor) -> Tensor:
        """The transpose of `mv`: a covector (S, M) -> (S, p), for each scenario."""
        whole = covector.new_zeros(len(covector), self.controls)
        derivatives = self.derivatives(v).expand(-1, len(covector), -1)
        whole[:, list(self.columns)] = torch.einsum("ksm,sm->sk", derivatives, covector)
        return whole

    def second(self, v: Tensor, covector: Tensor, d: Tensor) -> Tensor:
        """The derivative of `rmv`, summed over the scenarios, in a direction d (p,) with a fixed covector."""
        whole = torch.zeros_like(v)
        with torch.enable_grad():
            numbers, values = self._spread(v)
            found = gradient_along((values * covector).sum(), numbers, [d[k] for k in self.columns])
        for k, each in zip(self.columns, found, strict=True):
            whole[k] = 0.0 if each is None else each.sum()
        return whole


@dataclass(frozen=True, eq=False)
class GivenData:
    """The coefficients of the state that are not unknowns, as functions of the controls.

    Attributes:
        size: N, the number of coefficients of the state.
        matrix: (N, p) the map of the controls that are added to coefficients; None where there are none.
        parameters: the coefficients that are other functions of controls.
    """

    size: int
    matrix: SparseMatrix | None = None
    parameters: tuple[ParameterData, ...] = ()

    @property
    def touched(self) -> np.ndarray:
        """The indices of the coefficients that a control changes."""
        parts = [each.indices.cpu().numpy() for each in self.parameters]
        if self.matrix is not None:
            parts.append(np.flatnonzero(np.diff(self.matrix.host.indptr)))
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)

    def after(self, first: int) -> GivenData:
        """The same without those of the first coefficients, which no control changes then."""
        matrix = self.matrix
        if matrix is not None:
            kept = sp.diags_array(np.where(np.arange(self.size) < first, 0.0, 1.0))
            host = sp.csr_matrix(kept @ matrix.host)
            host.eliminate_zeros()
            matrix = SparseMatrix(host, matrix.device) if host.nnz else None
        parameters = tuple(found for each in self.parameters if (found := each.after(first)) is not None)
        return GivenData(self.size, matrix, parameters)

    def of_last(self, count: int, entries: np.ndarray, controls: int) -> GivenData:
        """The last `count` coefficients as functions of more controls (p,), of which the present ones are `entries`."""
        matrix, first = self.matrix, self.size - count
        if matrix is not None:
            chosen = sp.csr_matrix(
                (np.ones(len(entries)), (np.arange(len(entries)), entries)), (len(entries), controls)
            )
            matrix = SparseMatrix(sp.csr_matrix(matrix.host[first:] @ chosen), matrix.device)
        after = (each.after(first) for each in self.parameters)
        parameters = tuple(
            replace(
                each,
                columns=tuple(int(entries[k]) for k in each.columns),
                indices=each.indices - first,
                controls=controls,
            )
            for each in after
            if each is not None
        )
        return GivenData(count, matrix, parameters)

    def added(self, full: Tensor, v: Tensor) -> Tensor:
        """Coefficients (S, N), which are zero where parameters determine them, plus those of the controls v (p,)."""
        return self._plus(full, v, lambda each: each.values(v))

    def moved(self, full: Tensor, v: Tensor, d: Tensor) -> Tensor:
        """A change (S, N) of coefficients plus the change that follows from a change d (p,) of the controls at v."""
        return self._plus(full, d, lambda each: each.mv(v, d))

    def _plus(self, full: Tensor, controls: Tensor, values: Callable[[ParameterData], Tensor]) -> Tensor:
        """Coefficients (S, N) plus those that are added for controls (p,), and the values of the parameters."""
        if self.matrix is not None:
            full = full + self.matrix.mv(controls[None])
        for each in self.parameters:
            full = full.index_add(1, each.indices, values(each).expand(len(full), -1))
        return full

    def at(self, v: Tensor) -> DataDerivative:
        return DataDerivative(self, v)

    def second(self, v: Tensor, covector: Tensor, d: Tensor) -> Tensor | float:
        """The derivative of the pull-back of a covector (S, N) in a direction d (p,) of the controls; (p,)."""
        return sum(each.second(v, covector[:, each.indices], d) for each in self.parameters)

    def refusal(self, v: Tensor) -> str:
        """A sentence on a coefficient that is not admissible at v; empty where all are admissible."""
        return next((said for each in self.parameters if (said := each.refusal(v))), "")


@dataclass(frozen=True, eq=False)
class DataDerivative:
    """The derivative of the given coefficients by the controls at v (p,)."""

    data: GivenData
    v: Tensor

    def mv(self, d: Tensor) -> Tensor:
        """(p,) -> (1 or S, N)."""
        rows = max((each.derivatives(self.v).shape[1] for each in self.data.parameters), default=1)
        return self.data.moved(d.new_zeros(rows, self.data.size), self.v, d)

    def rmv(self, covector: Tensor) -> Tensor:
        """(S, N) -> (S, p), for each scenario."""
        whole = covector.new_zeros(len(covector), len(self.v))
        if self.data.matrix is not None:
            whole = whole + self.data.matrix.rmv(covector)
        for each in self.data.parameters:
            whole = whole + each.rmv(self.v, covector[:, each.indices])
        return whole

    def rmv_summed(self, covector: Tensor) -> Tensor:
        """(S, N) -> (p,), summed over the scenarios."""
        return self.rmv(covector).sum(0) if self.data.parameters else self.rmv(covector.sum(0, keepdim=True))[0]
