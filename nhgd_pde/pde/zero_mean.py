"""Fields that an equation determines up to a constant, such as the pressure of a flow in a closed domain."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ZeroMean:
    """Fixes a field that is known up to a constant: one coefficient is pinned, then the mean is subtracted.

    All other coefficients are unknowns, so that a vector of unknowns stands for a class of fields modulo constants.

    Attributes:
        first, end: the range of the coefficients of the field among those of the state.
        pinned: the coefficient that is not an unknown.
        weights: (end - first,) the weights of the coefficients in the mean.
    """

    first: int
    end: int
    pinned: int
    weights: Tensor

    def apply(self, full: Tensor) -> Tensor:
        """Coefficients (..., N) with the mean of the field subtracted."""
        moved = full.clone()
        field = moved[..., self.first : self.end]
        field -= (field @ self.weights)[..., None]
        return moved

    def transposed(self, covector: Tensor) -> Tensor:
        """The transpose of `apply`: a covector (..., N), projected so that it vanishes on constants.

        It subtracts the net flux through the boundary, spread evenly, from the residual of the continuity equation.
        """
        moved = covector.clone()
        field = moved[..., self.first : self.end]
        field -= field.sum(-1, keepdim=True) * self.weights
        return moved

    def completed(self, covector: Tensor) -> Tensor:
        """A covector (..., N) with the pinned entry with which it vanishes on constants."""
        moved = covector.clone()
        moved[..., self.pinned] = 0.0
        moved[..., self.pinned] = -moved[..., self.first : self.end].sum(-1)
        return moved

    def pinned_to_zero(self, full: Tensor) -> Tensor:
        """The representative of a class whose pinned coefficient is zero."""
        moved = full.clone()
        moved[..., self.first : self.end] -= full[..., self.pinned, None]
        return moved
