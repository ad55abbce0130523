"""The base of the equations of a problem file, and what an equation gives to the builder.

Checking a file needs the sections of all equations, but not torch. The files of families therefore import torch, and
modules that need it, inside functions only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...problem_file.equation_parts import EquationSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ...fem.evaluation_operator import EvaluationOperator
    from ...fem.state_space import FieldGroup, StateSpace
    from ...inner.residual import TestNorm
    from ...pde.cell_fields import Quantities
    from ...pde.form import ClosedForm, Coefficients, Pointwise
    from ...problem_file.loading import ProblemFile
    from ..values import Values


@dataclass(frozen=True)
class UndeterminedField:
    """A field, such as a pressure, that is determined up to a constant only if nothing can flow out.

    Attributes:
        field: the number of the field.
        outflow: (N,) the net flux through the boundary of each function of the state space.
    """

    field: int
    outflow: np.ndarray


@dataclass(frozen=True)
class Interior:
    """The equation in the cells.

    Attributes:
        form: the integrand.
        coefficients: the coefficients by the names that the integrand uses.
        affine: the integrand is affine in the state and in the source.
        symmetric: the derivative by the state is symmetric.
        coercive: the integrand is affine in the state, and its energy is not negative.
        absorbing: the integrand may determine the level of the state without any condition on the boundary.
        capacity: factor (P,) or (steps, P) of the time derivative of the first fields; None in a steady equation.
        norms: the product that each field is tested in.
        vector: the number of components of `source`; None for a scalar.
        evaluation: the functions of the state at quadrature points; None for the evaluation of the state space.
        level: (P,) factor of the values beside the gradients in the product of `norms`; None for the default, which is
            0 with Dirichlet values and 1 without.
        unseen: names and coefficients (N,) of states of a vector equation that have no energy, so that conditions on
            the boundary have to exclude them.
        eased: share -> the integrand with that share of its nonlinear part; None for an integrand without one.
        undetermined: a field that conditions on the boundary may leave undetermined up to a constant.
        multiplier: (P,) weight of the last field, a multiplier, in a product that is spectrally equivalent
            to its Schur complement; None without a multiplier.
        closed: an affine integrand as sums of products; None for another one.
        carrier: factor (dim, 1 or steps, P) of grad phi beside phi in the integral with the time derivative, where
            upwinding has changed the test functions; None without.
        derived: the field whose time derivative stands in the equation of each field; None for the first group of
            fields, each in its own.
        scale: a coefficient in which the part of the integrand with the state is affine, see `Integral`.
        flux_blocks: the derivative of a flux that is linear, see `Integral`.
        computed: coefficients that are computed from others: they have no key in the file, and are not in the output.
            All other coefficients are; `name 0`, `name 1`, ... are the components of a vector.
        quantities: further quantities for the output, such as a stress; None without. Their means over the cells are
            fields of final.vtu by their names.
    """

    form: Pointwise
    coefficients: dict[str, Tensor]
    affine: bool
    symmetric: bool
    coercive: bool
    absorbing: bool
    capacity: Tensor | None = None
    norms: tuple[TestNorm, ...] = ("h1",)
    vector: int | None = None
    evaluation: EvaluationOperator | None = None
    level: Tensor | None = None
    unseen: dict[str, np.ndarray] = field(default_factory=dict)
    eased: Callable[[float], Pointwise] | None = None
    undetermined: UndeterminedField | None = None
    closed: ClosedForm | None = None
    carrier: Tensor | None = None
    derived: tuple[int, ...] | None = None
    multiplier: Tensor | None = None
    scale: str = ""
    flux_blocks: Callable[[Coefficients, int], dict[tuple[int, int], Tensor]] | None = None
    computed: tuple[str, ...] = ()
    quantities: Quantities | None = None


class Equation(EquationSpec):
    """The base of equations: the section `pde` of a file, which can build the equation in the cells."""

    def groups(self, dim: int, element: str) -> tuple[FieldGroup, ...]:
        """The fields of the state, first the fields that sources act on; by default one scalar or vector."""
        from ...fem.state_space import FieldGroup

        return (FieldGroup("state", self.components_of_source(dim), element),)

    def interior(self, values: Values, space: StateSpace) -> Interior:
        """The equation in the cells; `values` evaluates expressions and collects mistakes."""
        raise NotImplementedError

    def absorbing(
        self, values: Values, x: Tensor, cells: np.ndarray, place: str
    ) -> tuple[Pointwise, dict[str, Tensor]]:
        """The condition that lets waves out, and its coefficients, for equations that tell that they have one.

        Args:
            values: evaluates expressions and collects mistakes.
            x: (dim, P) the points, on facets.
            cells: the cell of each facet.
            place: the key of the condition.
        """
        raise NotImplementedError


def equation_of(file: ProblemFile) -> Equation:
    """The equation of a problem file."""
    assert isinstance(file.spec.pde, Equation)
    return file.spec.pde
