"""A Hessian that is known along the directions of earlier products, and by a penalty everywhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...linalg.conjugate_gradients import conjugate_gradients
from ...linalg.safe_lengths import dot
from .penalty import Penalty

# A product whose share of the curvature along its direction is below this consists of rounding errors.
_ROUNDING = 1e-12
# Relative accuracy of a Newton step of the model; the next one corrects it.
_NEWTON = 0.01
_MOST_STEPS = 100


@dataclass(frozen=True)
class Products:
    """Products with the part K of a Hessian D + K that takes linear systems; K has no negative curvature.

    Attributes:
        steps: (k, p) directions s_i with <s_i, K s_j> = 1 for i = j, and else 0.
        images: (k, p) the products K s_i, covectors.
    """

    steps: Tensor
    images: Tensor

    @classmethod
    def none(cls, v: Tensor) -> Products:
        return cls(v.new_zeros(0, len(v)), v.new_zeros(0, len(v)))

    def __len__(self) -> int:
        return len(self.steps)

    def with_product(self, step: Tensor, image: Tensor, curvature: float) -> Products | None:
        """The products with a further one; the same where it adds nothing but rounding errors.

        None where it shows that K has negative curvature.

        Args:
            step, image: d (p,) and K d (p,).
            curvature: <d, (D + K) d>.
        """
        noise = _ROUNDING * curvature
        if not dot(step, image) >= -noise:
            return None
        # The second sweep removes the rounding errors of the first.
        for _ in range(2):
            shares = self.images @ step
            step, image = step - shares @ self.steps, image - shares @ self.images
        left = dot(step, image)
        if not left > noise:
            return self
        length = left**0.5
        return replace(
            self,
            steps=torch.cat([self.steps, step[None] / length]),
            images=torch.cat([self.images, image[None] / length]),
        )


@dataclass(frozen=True, eq=False)
class SpannedHessian:
    """B = D + sum_i (K s_i) (K s_i)^T, the Nystroem approximation of H = D + K.

    B is exact along the directions s_i and nowhere larger than H, so that its quadratic model is a lower bound.

    Attributes:
        penalty: D.
        products: the products with K.
        scale: (p,) the row sums of D over the diagonal inner product: an estimate of B in other directions.
    """

    penalty: Penalty
    products: Products
    scale: Tensor

    @classmethod
    def of(cls, mass: Tensor, penalty: Penalty, products: Products) -> SpannedHessian:
        return cls(penalty, products, penalty.lumped / mass)

    def product(self, d: Tensor) -> Tensor:
        """B d (p,), a covector."""
        images = self.products.images
        return self.penalty.product(d) + (images @ d) @ images

    def newton_step(self, slope: Tensor, free: Tensor) -> Tensor:
        """The step d in the free variables for which slope + B d nearly vanishes there.

        Conjugate gradients, with the row sums of D in place of D in the preconditioner (Sherman-Morrison-Woodbury).
        """
        images = self.products.images * free
        inverse = torch.where(free, 1.0 / self.penalty.lumped, 0.0)
        weighted = images * inverse
        inside = torch.linalg.cholesky(
            torch.eye(len(images), dtype=slope.dtype, device=slope.device) + weighted @ images.T
        )

        def operator(d: Tensor) -> Tensor:
            return torch.where(free, self.penalty.product(d), 0.0) + (images @ d) @ images

        def preconditioner(r: Tensor) -> Tensor:
            return inverse * r - torch.cholesky_solve((weighted @ r)[:, None], inside)[:, 0] @ weighted

        b = torch.where(free, -slope, 0.0)
        return conjugate_gradients(operator, b, preconditioner, rtol=_NEWTON, iterations=_MOST_STEPS).solution
