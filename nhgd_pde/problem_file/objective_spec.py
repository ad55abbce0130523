"""The vocabulary of `objective`: terms that are added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from nhgd_pde.problem_file.catalogue import TERMS, found_at
from nhgd_pde.problem_file.fields import OneOf
from nhgd_pde.problem_file.term_parts import TermSpec

# The sections of the catalogue, which type checkers do not see.
if TYPE_CHECKING:
    ObjectiveTerm = TermSpec
else:
    ObjectiveTerm = Annotated[Union[*map(found_at, TERMS.values())], OneOf()]
