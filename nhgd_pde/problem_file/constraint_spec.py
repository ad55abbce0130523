"""The vocabulary of `constraints`: what must hold besides the bounds of the controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from nhgd_pde.problem_file.catalogue import CONSTRAINTS, found_at
from nhgd_pde.problem_file.fields import OneOf
from nhgd_pde.problem_file.term_parts import ConditionSpec

# The sections of the catalogue, which type checkers do not see.
if TYPE_CHECKING:
    ConstraintSpec = ConditionSpec
else:
    ConstraintSpec = Annotated[Union[*map(found_at, CONSTRAINTS.values())], OneOf()]
