"""The base of constraints. The files of constraints import torch, and modules that need it, inside functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...problem_file.term_parts import ConditionSpec

if TYPE_CHECKING:
    from ..constraint_builder import ConstraintBuilder


class Condition(ConditionSpec):
    """The base of constraints: a section of `constraints` in a problem file, which can build the constraint."""

    def build(self, key: str, builder: ConstraintBuilder) -> None:
        """Give the constraint to the builder: to `inequality` for the outer method, or to `states` at nodes.

        Args:
            key: of the section in the file, such as `constraints.1`.
            builder: has the controls, evaluates expressions and collects mistakes.
        """
        raise NotImplementedError
