"""The section of the linear solver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from .catalogue import SOLVERS
from .fields import Number, Section

# The words of the catalogue, which type checkers do not see.
if TYPE_CHECKING:
    SolverName = str
else:
    SolverName = Literal["auto", *SOLVERS]


class SolverSpec(Section):
    """The solver of the linear systems of state and adjoint, and of inner products."""

    kind: SolverName = Field(
        default="auto",
        description="Factors by superlu, or algebraic multigrid (amg) for large symmetric positive definite systems; "
        "auto goes by dimension, size and structure. Others need a library: cholmod, pardiso, cudss, petsc.",
    )
    options: str = Field(
        default="",
        pattern=r"^\s*(-[A-Za-z].*)?$",
        description="Options of PETSc, such as -ksp_type cg -pc_type gamg; by the kind of matrix without them.",
    )
    # Newton's method needs steps that are known to a few per cent: with rougher ones it takes some for the wrong way.
    rtol: Annotated[float | Literal["auto"], Number(above=0, below=0.1, words=("auto",))] = Field(
        default="auto", description="Relative error of a solve of an iterative solver, in the energy norm."
    )
