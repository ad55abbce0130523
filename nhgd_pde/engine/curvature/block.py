"""A block-diagonal inverse: a dense inverse for every patch of neighbouring unknowns, all computed at once.

Blocks of unequal sizes are padded with zero rows and columns, which stay zero: a batch has no scores there, so that
products with A are zero too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from ...linalg.sparse import SparseMatrix
from ..bilevel import BilevelProblem
from .average import Average, Forgetting, check_saved, check_scores, cholesky, rayleigh_quotient, spectrum
from .base import BackendOptions, LocalBackend
from .shrinkage import Moments, moments

# Largest number of entries of the blocks that are updated at once, which bounds the memory beside the inverse.
_CHUNK = 2**22


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockState(Average):
    """
    Attributes:
        blocks: (B, b, b) the inverse of every block, padded with zeros, owned by this state and overwritten when
            it absorbs.
        unknowns: (B, b) the unknowns of every block; -1 stands for padding.
        dimension: d.
        overlap: a lower bound of the smallest eigenvalue of D relative to F, D the block diagonal of F.
    """

    blocks: Tensor
    unknowns: Tensor
    dimension: int
    overlap: float

    def solve(self, g: Tensor) -> Tensor:
        flat = g.reshape(-1)
        products = torch.bmm(self.blocks, _gathered(flat[:, None], self.unknowns))
        # The last entry takes the padding.
        solution = flat.new_zeros(flat.numel() + 1)
        solution[self.unknowns] = products[..., 0]
        return solution[:-1].reshape(g.shape)

    def estimate(self, g: Tensor) -> Tensor:
        return self.solve(g) * self.unbiased(self.blocks.shape[1])

    @property
    def trust(self) -> float:
        """The reciprocal of a bound of the largest eigenvalue of A F, which is above one even for A = D^-1.

        With F' = rho P + (1 - rho) D' the matrix that A inverts, P >= c F and D' >= (1 - sqrt(b / T))^2 D,
        D >= `overlap` F, the smallest eigenvalue of F' relative to F is at least the mean of these bounds.
        """
        return self.smallest(self.blocks.shape[1], self.overlap)

    @property
    def description(self) -> str:
        count, size, _ = self.blocks.shape
        return f"{count:,} blocks of at most {size} unknowns from {self.samples:,} scores"


@dataclass(frozen=True)
class Block(LocalBackend):
    """Options of the block-diagonal backend.

    Attributes:
        size: largest number of unknowns of a block.
        prior: `riesz` starts from the inverted blocks of the Gram matrix of the state space, `identity` from a
            multiple of the identity.
        prior_weight: n0, number of samples that the prior counts as; None chooses it, and a scale of the prior, from
            the first batch (see `shrinkage`).
        forgetting: as in `Dense`.
    """

    size: int = 64
    prior: Literal["riesz", "identity"] = "riesz"
    prior_weight: float | None = None
    forgetting: Forgetting = None

    @classmethod
    def of_options(cls, options: BackendOptions, scenarios: int) -> Self:
        return cls(options.block, options.prior, options.weight, options.forgetting)

    def bytes(self, unknowns: int) -> float:
        return 8.0 * self.size * unknowns

    def init(self, problem: BilevelProblem, u: Tensor, v: Tensor) -> BlockState:
        patches = problem.inner_patches(self.size)
        unknowns = _members(patches)
        gram = _gram_blocks(problem.inner_metric.matrix, patches, unknowns, u)
        padding = torch.diag_embed((unknowns < 0).to(gram.dtype))
        inverse = torch.cholesky_inverse(cholesky(gram + padding, 0)) - padding
        state = BlockState(blocks=inverse, unknowns=unknowns, dimension=u.numel(), overlap=1.0)
        # With K_b the blocks of K: F <= L K_b and mu K <= F, of which the blocks are mu K_b <= D, give D >= mu / L F.
        # And F <= B D for the B blocks of a scenario, as for any positive semidefinite matrix.
        _, largest = spectrum(problem, u, v, state.solve)
        smallest, _ = spectrum(problem, u, v, problem.inner_metric.gradient)
        overlap = min(max(smallest / largest, u.shape[0] / unknowns.shape[0]), 1.0)
        floor = 1.0 / largest
        if self.prior == "identity":
            scale = rayleigh_quotient(problem, u, v)
            floor = scale / spectrum(problem, u, v, torch.clone)[1]
            inverse = torch.diag_embed((unknowns >= 0).to(gram.dtype) / scale)
        return replace(state, blocks=inverse, overlap=overlap, prior_weight=self.prior_weight, prior_floor=floor)

    def absorb(self, state: BlockState, scores: Tensor) -> BlockState:
        """A rank-m update of every block, in place.

        Raises:
            ValueError: scores of another dimension, or not finite.
        """
        unknowns, m = state.unknowns, scores.shape[1]
        size = unknowns.shape[1]
        check_scores(scores, state.dimension)
        mean, beta, scale = state.absorbing(m, size, self._moments(state, scores), self.forgetting)
        for chunk in _chunks(state.blocks):
            inverse = state.blocks[chunk].div_(scale)
            local = _gathered(scores, unknowns[chunk])
            # At most as many scores at once as a block has unknowns: the result is the same, and the small matrices
            # stay small.
            for part in local.split(size, dim=2):
                image = torch.bmm(inverse, part)
                small = torch.bmm(part.mT, image)
                small.diagonal(dim1=1, dim2=2).add_(m * (1.0 - beta) / beta)
                half = torch.linalg.solve_triangular(cholesky(small, state.samples), image.mT, upper=False)
                inverse.baddbmm_(half.mT, half, alpha=-1.0)
            inverse.copy_(inverse + inverse.mT).mul_(0.5 / (1.0 - beta))
        return mean

    def restore(self, problem: BilevelProblem, saved: dict[str, Any]) -> BlockState:
        d, unknowns = math.prod(problem.inner_shape), saved["unknowns"]
        count, size = unknowns.shape
        check_saved("blocks", saved["blocks"], (count, size, size))
        inside = not unknowns.is_floating_point() and bool(((unknowns >= -1) & (unknowns < d)).all())
        if saved["dimension"] != d or not inside:
            raise ValueError(f"blocks: expected unknowns 0 to {d - 1}, and -1 for padding, found others")
        return BlockState(**saved)

    def _moments(self, state: BlockState, scores: Tensor) -> Moments | None:
        """The moments of the diagonal blocks of F, where they are needed."""
        if state.prior_weight is not None and self.forgetting != "auto":
            return None
        found = []
        for chunk in _chunks(state.blocks):
            unknowns = state.unknowns[chunk]
            local = _gathered(scores, unknowns)
            grams = torch.bmm(local.mT, torch.bmm(state.blocks[chunk], local))
            found.append(moments(grams, (unknowns >= 0).sum(1)))
        return reduce(add, found)


def _members(patches: Tensor) -> Tensor:
    """(d,) patch of every unknown -> (B, b) unknowns of every patch, filled up with -1."""
    counts = torch.bincount(patches)
    order = torch.argsort(patches, stable=True)
    starts = counts.cumsum(0) - counts
    ordered = patches[order]
    places = torch.arange(len(patches), device=patches.device) - starts[ordered]
    members = torch.full((len(counts), int(counts.max())), -1, device=patches.device)
    members[ordered, places] = order
    return members


def _gathered(rows: Tensor, unknowns: Tensor) -> Tensor:
    """(d, m) -> (B, b, m), zero where there is padding."""
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])[unknowns]


def _gram_blocks(matrix: SparseMatrix, patches: Tensor, members: Tensor, like: Tensor) -> Tensor:
    """(B, b, b) the blocks of K of every scenario."""
    d, n = len(patches), matrix.shape[0]
    patch = patches.cpu().numpy()
    count, size = members.shape
    place = np.empty(d + 1, dtype=np.int64)
    place[members.cpu().numpy()] = np.arange(size)
    entries = matrix.host.tocoo()
    blocks = np.zeros((count, size, size))
    for start in range(0, d, n):
        rows, columns = start + entries.row, start + entries.col
        kept = patch[rows] == patch[columns]
        rows, columns = rows[kept], columns[kept]
        blocks[patch[rows], place[rows], place[columns]] = entries.data[kept]
    return torch.from_numpy(blocks).to(like)


def _chunks(blocks: Tensor) -> Iterator[slice]:
    count, size, _ = blocks.shape
    width = max(1, _CHUNK // size**2)
    for first in range(0, count, width):
        yield slice(first, first + width)
