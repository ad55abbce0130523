"""The base of objective terms. The files of terms import torch, and modules that need it, inside functions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...problem_file.term_parts import TermSpec

if TYPE_CHECKING:
    from ...objective.terms import Objective
    from ..objective_builder import ObjectiveBuilder


class Term(TermSpec):
    """The base of terms: a section of `objective` in a problem file, which can build its part of the objective."""

    def build(self, key: str, builder: ObjectiveBuilder) -> Objective:
        """The part of the objective.

        Args:
            key: of the section in the file, such as `objective.1`.
            builder: has the spaces and controls, evaluates expressions and collects mistakes.
        """
        raise NotImplementedError
