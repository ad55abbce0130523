"""Checks of a user's pointwise function before it is used: shapes, derivatives, and properties of the equation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..fem.evaluation_operator import EvaluationOperator
from .form import Integral, Pointwise
from .pointwise import field_groups
from .probing import NOT_ITS_DERIVATIVE, SCALES, changed_in_place, probe


class FormError(ValueError):
    """A form that cannot be used; the message names the form and the expected result."""


@dataclass(frozen=True)
class CheckedForm:
    """A pointwise function whose results are checked each time it is called.

    Attributes:
        name: for messages, `file.py:function`.
        form: the function itself.
    """

    name: str
    form: Pointwise

    def __call__(self, u: Tensor, grad: Tensor, c: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
        try:
            result = self.form(u, grad, c, x)
        except FormError:
            raise
        except KeyError as error:
            known = ", ".join(sorted(c)) or "none"
            raise FormError(f"{self.name} asks for the coefficient {error}; the file gives: {known}") from error
        except Exception as error:
            raise FormError(f"{self.name} raised {type(error).__name__}: {error}") from error
        if not isinstance(result, tuple) or len(result) != 2:
            found = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise FormError(
                f"{self.name} returned {found}; expected a pair (f0, f1), the factors of the test function phi and of "
                "its gradient in int f0 phi + f1 . grad phi"
            )
        value, flux = result
        if value is None and flux is None:
            raise FormError(f"{self.name} returned (None, None): no test function appears in the form")
        value = torch.zeros_like(u) if value is None else self._shaped("f0", value, u)
        return value, None if flux is None else self._shaped("f1", flux, grad)

    def _shaped(self, which: str, found: object, like: Tensor) -> Tensor:
        if not isinstance(found, Tensor):
            if isinstance(found, int | float):
                return torch.full_like(like, float(found))
            raise FormError(f"{self.name}: {which} is of type {type(found).__name__}; expected a torch tensor")
        try:
            if which == "f1" and found.ndim != like.ndim:
                raise RuntimeError
            if found.dtype != like.dtype:
                told = str(found.dtype).removeprefix("torch.")
                wanted = str(like.dtype).removeprefix("torch.")
                raise FormError(f"{self.name}: {which} has numbers of type {told}; expected {wanted}")
            return found.expand(like.shape)
        except RuntimeError:
            raise FormError(
                f"{self.name}: {which} has shape {tuple(found.shape)}; expected {tuple(like.shape)}, or what "
                "broadcasts to it"
            ) from None


@dataclass(frozen=True)
class FormProperties:
    """Properties of a form, found from its derivatives at a few random states.

    Attributes:
        affine: the derivatives are the same at all states.
        symmetric: the derivatives are symmetric.
        coercive: the form is affine, and its derivatives are symmetric and positive semidefinite.
        absorbing: the form depends on the value of the state, and not only on its gradient.
    """

    affine: bool
    symmetric: bool
    coercive: bool
    absorbing: bool


def examine(name: str, integral: Integral, rows: int, generator: torch.Generator) -> FormProperties:
    """Evaluates the form of an integral, without controls, at random states (components, rows, points).

    Raises:
        FormError: the form gives values that are not finite, or wrong derivatives.
    """
    points = integral.evaluation.quadrature.points
    components = integral.evaluation.components
    like = integral.evaluation.quadrature.weights
    first: dict[tuple[int, int], Tensor] = {}
    affine = True
    for k, scale in enumerate(SCALES):
        state = scale * torch.randn((components, rows, points), generator=generator, dtype=like.dtype).to(like.device)
        blocks = dict(integral.state_blocks(state, None))
        _compare(name, integral, state, generator)
        if k == 0:
            first = blocks
        affine = affine and _same(first, blocks)
    symmetric = all((j, i) in first and _close(block, first[j, i]) for (i, j), block in first.items())
    values = range(0, components, integral.evaluation.stride)
    coercive = affine and symmetric and _not_negative(first, components, integral.evaluation)
    return FormProperties(affine, symmetric, coercive, any(i in values and j in values for i, j in first))


def _compare(name: str, integral: Integral, state: Tensor, generator: torch.Generator) -> None:
    """Compares the derivatives by values and by gradients with differences."""
    value = integral.density(state, None)
    if not torch.isfinite(value).all():
        raise FormError(f"{name} gives a value that is not finite at a state of size {float(state.abs().max()):.1g}")
    x = integral.evaluation.quadrature.flat
    given = {"u or grad": state, **{f"c[{each!r}]": own for each, own in integral.coefficients.items()}, "x": x}
    changed = changed_in_place(lambda: integral.density(state, None), given)
    if changed:
        raise FormError(f"{name} changes {changed}, which it is given, in place: expected new tensors")
    size = float(state.abs().max())
    everything = ("the state", 0, tuple(range(len(state))))
    for label, _, components in (everything, *field_groups(len(state), integral.evaluation.stride, 0, "u")):
        found = probe(lambda each: integral.density(each, None), state, components, size, generator)
        if found is not None and found.wrong:
            told = f"{NOT_ITS_DERIVATIVE}" if label == everything[0] and not found.zero else found.sentence(label)
            raise FormError(f"{name}: {told}")


def _same(a: dict[tuple[int, int], Tensor], b: dict[tuple[int, int], Tensor]) -> bool:
    return a.keys() == b.keys() and all(_close(a[key], b[key]) for key in a)


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-12 * (a.abs().max() + b.abs().max()))


def _not_negative(blocks: dict[tuple[int, int], Tensor], components: int, evaluation: EvaluationOperator) -> bool:
    weights = evaluation.quadrature.weights
    dense = weights.new_zeros(*weights.shape, components, components)
    for (i, j), block in blocks.items():
        dense[..., i, j] = block[0]
    values = torch.linalg.eigvalsh(dense)
    return bool((values >= -1e-12 * values.abs().amax()).all())
