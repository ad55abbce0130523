"""The coordinates in which designs are drawn at random and mutated: few, whatever the mesh is.

A number is a gene of its own. A field has a gene for each of a few points, spread over the domain: a Gaussian around
the point. The functions add up to one, so that genes between 0 and 1 give fields between the bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Most genes of a field.
_MOST = 32


@dataclass(frozen=True, eq=False)
class Genes:
    """v = lower + width * (x W), with x (g,) the genes; the exponential of this where v is multiplied.

    Attributes:
        weights: W (g, p), at least 0; every column adds up to one.
        apart: (g, g) the distances between genes; infinite between those of different controls.
        lower, width: (p,) the values at x = 0, and the difference to those at x = 1.
        multiplied: (p,) where both bounds are positive: `lower` and `width` are then those of log v.
    """

    weights: Tensor
    apart: Tensor
    lower: Tensor
    width: Tensor
    multiplied: Tensor

    @property
    def count(self) -> int:
        """g."""
        return self.weights.shape[0]

    def drawn(self, generator: torch.Generator) -> Tensor:
        """A random design (p,): genes that are uniform between 0 and 1."""
        x = torch.rand(self.count, generator=generator, dtype=self.weights.dtype)
        return self._design(x @ self.weights)

    def mutated(self, v: Tensor, shift: Tensor) -> Tensor:
        """The design v (p,) with its genes shifted by (g,), reflected at the bounds.

        Where v is multiplied this is v * alpha with alpha = exp(width shift); elsewhere it is a sum, as a factor makes
        no sense where zero is a value like any other. Genes that overlap partly cancel each other where their shifts
        are independent: divided by the lengths of the columns of W, the shift of a field has the same standard
        deviation everywhere as those of its genes.
        """
        return self._design(self._reflected(self._shares(v) + shift @ (self.weights / self.weights.norm(dim=0))))

    def mixed(self, v: Tensor, other: Tensor, chosen: Tensor) -> Tensor:
        """The design v (p,), with that of another in the chosen genes (g,), true or false."""
        mine = self._shares(v)
        return self._design(torch.lerp(mine, self._shares(other), chosen.to(mine.dtype) @ self.weights))

    def region(self, centre: int, size: int, generator: torch.Generator) -> Tensor:
        """(g,) true for a gene and for those that are nearest to it, `size` of them; chance decides between others that
        are equally far away, as those of other controls are."""
        chance = torch.randperm(self.count, generator=generator)
        nearest = chance[self.apart[centre][chance].argsort(stable=True)]
        chosen = torch.zeros(self.count, dtype=torch.bool)
        chosen[nearest[:size]] = True
        return chosen

    def of(self, v: Tensor) -> Tensor:
        """The means (g,) of a design (p,) over the genes, in ranges."""
        return (self.weights @ self._shares(v)) / self.weights.sum(1)

    def derivative(self, v: Tensor, covector: Tensor, shift: Tensor | None = None) -> Tensor:
        """The derivative (g,) by the shift of `mutated(v, shift)`, for the derivative (p,) by the mutated design.

        A gene that was reflected at a bound moves the design the other way.
        """
        start = torch.zeros(self.count, dtype=v.dtype) if shift is None else shift
        return torch.func.grad(lambda shift: covector @ self.mutated(v, shift))(start)

    def distance(self, a: Tensor, b: Tensor) -> float:
        """The largest difference of two designs, in ranges."""
        return float((self._shares(a) - self._shares(b)).abs().max())

    def _shares(self, v: Tensor) -> Tensor:
        own = torch.where(self.multiplied, torch.where(self.multiplied, v, 1.0).log(), v)
        return (own - self.lower) / self.width

    def _design(self, shares: Tensor) -> Tensor:
        own = self.lower + self.width * shares
        return torch.where(self.multiplied, torch.where(self.multiplied, own, 0.0).exp(), own)

    def _reflected(self, shares: Tensor) -> Tensor:
        """Values reflected at 0 and 1 until they are between both."""
        return 1.0 - (1.0 - shares.remainder(2.0)).abs()


def genes_of(points: Sequence[Tensor | None], bounds: tuple[Tensor, Tensor]) -> Genes:
    """The genes of controls side by side.

    Args:
        points: of each control the points (m, dim) of its values; None for a number.
        bounds: lower and upper bounds (p,), finite.

    Raises:
        ValueError: a bound that is not finite, or no room between two bounds.
    """
    lower, upper = bounds
    if not bool((torch.isfinite(lower) & torch.isfinite(upper) & (lower < upper)).all()):
        raise ValueError("expected finite bounds with lower < upper, between which designs are drawn at random")
    one = torch.ones(1, 1, dtype=lower.dtype)
    blocks = [(one, 0.0 * one) if each is None else _hats(each.to(lower.dtype)) for each in points]
    ours = torch.block_diag(*(torch.ones_like(distances) for _, distances in blocks)) > 0.0
    apart = torch.where(ours, torch.block_diag(*(distances for _, distances in blocks)), torch.inf)
    multiplied = lower > 0.0
    low, high = (torch.where(multiplied, torch.where(multiplied, b, 1.0).log(), b) for b in (lower, upper))
    return Genes(torch.block_diag(*(weights for weights, _ in blocks)), apart, low, high - low, multiplied)


def _hats(points: Tensor) -> tuple[Tensor, Tensor]:
    """(g, m) Gaussians around a few of the points (m, dim), divided by their sum, and the distances (g, g) of these."""
    centres = [int((points - points.mean(0)).square().sum(1).argmax())]
    distances = (points - points[centres[0]]).norm(dim=1)
    while len(centres) < min(_MOST, len(points)) and float(distances.max()) > 0.0:
        centres.append(int(distances.argmax()))
        distances = torch.minimum(distances, (points - points[centres[-1]]).norm(dim=1))
    reach = max(float(distances.max()), torch.finfo(points.dtype).tiny)
    # The fast way to distances, by products, would not give zero for a point and itself.
    between = torch.cdist(points[centres], points, compute_mode="donot_use_mm_for_euclid_dist")
    exponents = -0.5 * (between / reach).square()
    return torch.softmax(exponents, dim=0), between[:, centres]
