"""What sensors tell about a control, and the two criteria of optimal design, in a space of few dimensions.

A candidate j measures b values with the derivative F_j (b, p) by the control and the covariance N of the noise. With
weights w_j the precision (inverse covariance) of the posterior is R + F_0^T N_0^-1 F_0 + sum w_j F_j^T N^-1 F_j, with
the precision R of the prior and sensors 0 that are there already. With the root R = L^T L and N^-1/2 F L^-1 = K Q,
where the r rows of Q are orthonormal, the posterior differs from the prior in r dimensions alone. Its precision there:

    H(w) = H_0 + sum w_j K_j^T K_j,   H_0 = I + K_0^T K_0.

The criteria are gains over the design without new sensors, concave in w and growing with every weight:

    D:  1/2 (log det H(w) - log det H_0),   the expected information gain in nats,
    A:  tr T (H_0^-1 - H(w)^-1),            the share of the integrated variance that the sensors take away,

(Chaloner and Verdinelli 1995, Stat. Sci. 10; for fields Alexanderian, Petra, Stadler and Ghattas 2014, SIAM J. Sci.
Comput. 36, A2122-A2148).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Criterion = Literal["D", "A"]


@dataclass(frozen=True, eq=False)
class SensorInformation:
    """The candidates, and a criterion.

    Attributes:
        rows: (m, b, r) the matrices K_j.
        base: (r, r) the precision H_0 without new sensors.
        spread: (r, r) the matrix T of criterion A, divided by the integrated variance without new sensors.
        criterion: D or A.
    """

    rows: Tensor
    base: Tensor
    spread: Tensor
    criterion: Criterion

    @property
    def count(self) -> int:
        """m, the number of candidates."""
        return len(self.rows)

    def precision(self, weights: Tensor) -> Tensor:
        """H(w) (r, r) for weights (m,)."""
        weighted = (weights[:, None, None] * self.rows).reshape(-1, self.rows.shape[2])
        return self.base + weighted.T @ self.rows.reshape(-1, self.rows.shape[2])

    def covariance(self, weights: Tensor) -> Tensor:
        """H(w)^-1 (r, r)."""
        return torch.cholesky_inverse(torch.linalg.cholesky(self.precision(weights)))

    def value(self, weights: Tensor) -> float:
        """The criterion for weights (m,)."""
        factor, before = torch.linalg.cholesky(self.precision(weights)), torch.linalg.cholesky(self.base)
        if self.criterion == "D":
            return float((factor.diagonal().log() - before.diagonal().log()).sum())
        return float((self.spread * (torch.cholesky_inverse(before) - torch.cholesky_inverse(factor))).sum())

    def gradient(self, weights: Tensor) -> Tensor:
        """(m,) the derivatives of the criterion by the weights, 1/2 tr K C K^T or tr K C T C K^T with C = H^-1."""
        covariance = self.covariance(weights)
        shape = 0.5 * covariance if self.criterion == "D" else covariance @ self.spread @ covariance
        return torch.einsum("mbr,rs,mbs->m", self.rows, shape, self.rows)

    def gains(self, covariance: Tensor) -> Tensor:
        """(m,) what each candidate adds with the weight 1 to sensors after which the covariance is C (r, r).

        1/2 log det(I + K C K^T), or tr (I + K C K^T)^-1 K C T C K^T.
        """
        images = self.rows @ covariance
        own = torch.eye(self.rows.shape[1]).to(self.rows) + images @ self.rows.mT
        factors = torch.linalg.cholesky(own)
        if self.criterion == "D":
            return factors.diagonal(dim1=1, dim2=2).log().sum(1)
        return torch.einsum("mbr,rs,mbs->m", torch.cholesky_solve(images, factors), self.spread, images)
