"""Training softmax regression as the inner problem of a bilevel problem.

    g(u, v) = 1/N sum_i w_i CE(u; x_i, y_i) + lambda/2 |u|^2,     f(u, v) = 1/M sum_j CE(u; x_j', y_j')

CE is the cross entropy, -log p(y | x; u). The training set (x_i, y_i, w_i) is a function of the outer variables v; the
validation set (x_j', y_j') is fixed. g is a negative log-likelihood up to constants, the ridge being that of a normal
prior, and its Fisher information is

    F = 1/N sum_i w_i J_i^T (diag(p_i) - p_i p_i^T) J_i + lambda I,     J_i the derivative of the logits of x_i,

which is the Hessian, as the logits are linear in u.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.func import grad, jvp
from torch.nn.functional import cross_entropy

from ..engine.bilevel import InnerBatch, Sample
from ..engine.curvature.factored import Factored
from ..engine.finite_sums import InnerTerm, OuterTerm, partition
from ..engine.inner_loop import InnerOptions, InnerState, solve_inner
from ..linalg.riesz import RieszMap
from .classifier import Classifier, with_constant
from .factors import ConvexFactors, root_factors
from .loss_problem import LossProblem
from .metrics import training_metric

# Relative residual at which `trained` ends.
_TRAINED = 1e-8


@dataclass(frozen=True)
class Examples:
    """Images with their labels.

    Attributes:
        images: (N, f) pixels in [0, 1].
        labels: (N,) classes 0, 1, ...
        weights: (N,) of the losses; None for one.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor) -> Examples:
        """The examples with these numbers."""
        weights = None if self.weights is None else self.weights[index]
        return Examples(self.images[index], self.labels[index], weights)


class TrainingSet(Protocol):
    """A training set as a differentiable function of the outer variables: this is what tasks differ in."""

    @property
    def start(self) -> Tensor:
        """The first outer variables (p,)."""
        ...

    def at(self, v: Tensor) -> Examples:
        """The training set for outer variables v (p,)."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Classification(LossProblem):
    """Tune a training set so that what is learnt from it does well on the validation set.

    Attributes:
        classifier: the model.
        training: the training set as a function of v.
        validation: the examples of the outer loss.
        ridge: lambda > 0.
        scores: `model` draws the label of a score from p(y | x; u), so that the scores' second moment is F whatever
            the data are; `observed` takes the stochastic gradients of g themselves, as the paper does.
        drawn: examples of a stochastic inner gradient are drawn; else gradients are of all examples, and only the
            scores are drawn.
    """

    classifier: Classifier
    training: TrainingSet
    validation: Examples
    ridge: float
    scores: Literal["model", "observed"] = "model"
    drawn: bool = False

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        training: TrainingSet,
        validation: Examples,
        ridge: float,
        scores: Literal["model", "observed"] = "model",
        drawn: bool = False,
    ) -> Classification:
        """The problem with these attributes."""

        def inner(u: Tensor, v: Tensor) -> Tensor:
            return training_loss(classifier, training.at(v), ridge, u)

        def outer(u: Tensor, v: Tensor) -> Tensor:
            return cross_entropy(classifier.logits(u, validation.images), validation.labels)

        first = torch.zeros(classifier.size, dtype=torch.float64), training.start
        return cls(
            inner,
            outer,
            first,
            classifier=classifier,
            training=training,
            validation=validation,
            ridge=ridge,
            scores=scores,
            drawn=drawn,
        )

    @cached_property
    def inner_metric(self) -> RieszMap:
        return training_metric(self.classifier, self.training.at(self.first[1]).images, self.ridge)

    def state_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return self.hessian_product(u, v, w)

    def hessian_product(self, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """F w (k, d)."""
        self.counts.products += len(w)
        return self._curved(self._fitted(u, self.training.at(v)), w)

    def _curved(self, fitted: _Fitted, w: Tensor) -> Tensor:
        """F w (k, d) of some examples: the logits W a + b are linear in the parameters."""
        moved = torch.stack([self.classifier.logits(each, fitted.images) for each in w])
        p = fitted.p
        errors = fitted.shares[:, None] * p * (moved - (p * moved).sum(-1, keepdim=True))
        return (errors.mT @ with_constant(fitted.images)).flatten(1) + self.ridge * w

    def _fitted(self, u: Tensor, examples: Examples) -> _Fitted:
        p = self.classifier.logits(u[0], examples.images).softmax(1)
        return _Fitted(examples.images, p, _weights(examples, p) / len(examples))

    def layer_factors(self, u: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The second moment of the inputs [x, 1] and the Fisher information of the logits, diag(p) - p p^T.

        Both are means with the weights of the examples; G kron A is F without the ridge if they are uncorrelated.
        """
        fitted = self._fitted(u, self.training.at(v))
        inputs, p, total = with_constant(fitted.images), fitted.p, fitted.shares.sum()
        weighted = fitted.shares[:, None]
        moment = (weighted * inputs).T @ inputs / total
        return [(moment, torch.diag((weighted * p).sum(0)) - (weighted * p).T @ p)]

    def fisher_factors(self, u: Tensor, v: Tensor) -> ConvexFactors:
        """Factors of F."""
        self.counts.factorisations += 1
        examples = self.training.at(v)
        rows = len(examples) * self.classifier.classes
        return root_factors(self._roots(u[0], examples), rows, u.shape[1], self.ridge, self.counts)

    def _roots(self, u: Tensor, examples: Examples) -> Iterator[Tensor]:
        """B_c (N, d) with F = sum_c B_c^T B_c + lambda I, as diag(p) - p p^T = sum_c p_c (e_c - p) (e_c - p)^T."""
        p = self.classifier.logits(u, examples.images).softmax(1)
        weights = _weights(examples, p) / len(examples)
        for label, share in enumerate(p.T):
            errors = -p
            errors[:, label] += 1.0
            yield self.classifier.example_gradients(examples.images, (weights * share).sqrt()[:, None] * errors)

    # Samples

    def sample(self, count: int, generator: torch.Generator) -> Sample:
        """Two uniform numbers, which choose an example and its label, and a normal vector for the ridge."""
        chosen = torch.rand(1, count, 2, generator=generator, dtype=torch.float64)
        return Sample(torch.cat([chosen, super().sample(count, generator).tests], 2))

    def batch(self, u: Tensor, v: Tensor, sample: Sample) -> InnerBatch:
        tests, examples = sample.tests[0], self.training.at(v)
        index = (tests[:, 0] * len(examples)).long()
        some = examples.subset(index)
        fitted = self._fitted(u, some)
        p, weights = fitted.p, len(some) * fitted.shares[:, None]
        errors = p - _indicators(some.labels, p)
        gradients = self.classifier.example_gradients(some.images, weights * errors) + self.ridge * u
        scores = gradients
        if self.scores == "model" and tests.shape[1] > 2:
            # Rounding may leave the sum of all probabilities below the number that was drawn.
            labels = (p.cumsum(1) < tests[:, 1, None]).sum(1).clamp(max=p.shape[1] - 1)
            scores = self.classifier.example_gradients(some.images, weights.sqrt() * (p - _indicators(labels, p)))
            # The ridge is the likelihood of observing u with normal noise of variance 1 / lambda.
            scores = scores + math.sqrt(self.ridge) * tests[:, 2:]
        gradient = gradients.mean(0, keepdim=True) if self.drawn else self.residual(u, v)
        m, d = scores.shape
        return InnerBatch(
            gradient=gradient,
            scores=scores.T.contiguous(),
            residual=self.inner_metric.dual_norm(gradient),
            step=m / (m + d + 1) if self.drawn else 1.0,
            hessian=lambda w: self._curved(fitted, w),
            cross=lambda q: self._drawn_cross(u, v, q, index) if self.drawn else self.cross_product(u, v, q),
        )

    def _drawn_cross(self, u: Tensor, v: Tensor, q: Tensor, index: Tensor) -> Tensor:
        """The transposed cross derivative of the losses of some examples, times q (1, d); (p,)."""

        def slope(v: Tensor) -> Tensor:
            some = self.training.at(v).subset(index)
            return jvp(lambda u: training_loss(self.classifier, some, self.ridge, u), (u[0],), (q[0],))[1]

        return grad(slope)(v)

    # The sums of training and validation losses, as `FiniteSumProblem`

    def inner_terms(self, size: int) -> tuple[InnerTerm, ...]:
        """Minibatches of the training examples; their samples have no numbers for scores of the model."""
        count = len(self.training.at(self.first[1]))
        terms = []
        for numbers, factor in partition(count, size):
            chosen = (numbers.double() + 0.5) / count
            terms.append(InnerTerm(Sample(torch.stack([chosen, torch.full_like(chosen, 0.5)], 1)[None]), factor))
        return tuple(terms)

    def outer_terms(self, size: int) -> tuple[OuterTerm, ...]:
        return tuple(OuterTerm(*part) for part in partition(len(self.validation), size))

    def outer_term_derivatives(self, u: Tensor, v: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        some = self.validation.subset(numbers)

        def loss(u: Tensor) -> Tensor:
            return cross_entropy(self.classifier.logits(u, some.images), some.labels)

        return grad(loss)(u[0])[None], torch.zeros_like(v)

    def trained(self, v: Tensor) -> Tensor:
        """u*(v) (1, d), by damped Newton steps from the start."""
        u, curvature = self.cold_start(v), Factored()
        state = InnerState(u, curvature.init(self, u, v))
        return solve_inner(self, v, state, curvature, InnerOptions(), _TRAINED, torch.Generator()).state.u

    def accuracy(self, u: Tensor, examples: Examples) -> float:
        """The share of examples that parameters u (1, d) classify as labelled."""
        found = self.classifier.logits(u[0], examples.images).argmax(1)
        return float((found == examples.labels).double().mean())


@dataclass(frozen=True)
class _Fitted:
    """Examples with what the classifier makes of them.

    Attributes:
        images: (N, f).
        p: (N, c) the probabilities of the classes.
        shares: (N,) the weights of the losses in their sum.
    """

    images: Tensor
    p: Tensor
    shares: Tensor


def training_loss(classifier: Classifier, examples: Examples, ridge: float, u: Tensor) -> Tensor:
    """g of examples for parameters u (d,)."""
    losses = cross_entropy(classifier.logits(u, examples.images), examples.labels, reduction="none")
    weighted = losses if examples.weights is None else examples.weights * losses
    return weighted.mean() + 0.5 * ridge * u.square().sum()


def _weights(examples: Examples, p: Tensor) -> Tensor:
    return torch.ones_like(p[:, 0]) if examples.weights is None else examples.weights


def _indicators(labels: Tensor, p: Tensor) -> Tensor:
    """(N, c) with one at the label of every row."""
    return torch.eye(p.shape[1], dtype=p.dtype)[labels]
