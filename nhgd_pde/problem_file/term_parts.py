"""The bases of the sections of objective terms and of constraints, with what checks of a file ask of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from nhgd_pde.problem_file.fields import Number, Section

Weight = Annotated[float, Number(above=0)]


class TermSpec(Section):
    """The base of the sections of objective terms.

    Attributes:
        of_loads: the term depends on the loads of the equation, so that random inputs in these change it.
        of_controls: the term depends on nothing but controls.
    """

    if TYPE_CHECKING:
        kind: str

    of_loads: ClassVar[bool] = False
    of_controls: ClassVar[bool] = False

    @property
    def file(self) -> tuple[str, str] | None:
        """The key and the name of a file that the term reads; None without one."""
        return None

    @property
    def moving(self) -> bool:
        """Whether the term differs from one time step to another besides its expressions in t."""
        return False

    def regularises(self, control: str) -> bool:
        """Whether the term keeps a control of this name from growing, or from changing quickly in space."""
        return False


class ConditionSpec(Section):
    """The base of the sections of constraints.

    Attributes:
        of_state: the constraint bounds the state, by a penalty and multipliers in every scenario.
    """

    if TYPE_CHECKING:
        kind: str

    of_state: ClassVar[bool] = False


def term_names(kinds: Sequence[str]) -> list[str]:
    """The kinds of the terms of an objective; several of a kind are numbered by their places in the file."""
    return [kind if kinds.count(kind) == 1 else f"{kind}_{k}" for k, kind in enumerate(kinds)]
