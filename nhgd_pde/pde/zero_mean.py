"""Fields that an equation determines up to a constant, such as the pressure of a flow that is closed all around."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ZeroMean:
    """One coefficient of the field is no unknown: the field is the one of mean zero among those that differ from the
    given coefficients by a constant.

    All other coefficients are unknowns, so that vectors of unknowns stand for classes of fields modulo constants.

    Attributes:
        first, end: coefficients of the field among those of the state.
        pinned: the coefficient that is no unknown.
        weights: (end - first,) with which coefficients add up to the mean.
    """

    first: int
    end: int
    pinned: int
    weights: Tensor

    def apply(self, full: Tensor) -> Tensor:
        """Coefficients (..., N), the mean taken away."""
        moved = full.clone()
        field = moved[..., self.first : self.end]
        field -= (field @ self.weights)[..., None]
        return moved

    def transposed(self, covector: Tensor) -> Tensor:
        """The transpose of `apply`: what is left of a covector (..., N) on fields of mean zero.

        Of the residual of the continuity equation it takes the net flux through the boundary, spread out evenly.
        """
        moved = covector.clone()
        field = moved[..., self.first : self.end]
        field -= field.sum(-1, keepdim=True) * self.weights
        return moved

    def completed(self, covector: Tensor) -> Tensor:
        """A covector (..., N) with the pinned entry for which constants give zero."""
        moved = covector.clone()
        moved[..., self.pinned] = 0.0
        moved[..., self.pinned] = -moved[..., self.first : self.end].sum(-1)
        return moved

    def pinned_to_zero(self, full: Tensor) -> Tensor:
        """The representative of a class whose pinned coefficient is zero."""
        moved = full.clone()
        moved[..., self.first : self.end] -= full[..., self.pinned, None]
        return moved
