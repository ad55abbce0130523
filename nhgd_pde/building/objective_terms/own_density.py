"""Densities of the user's own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ...problem_file.fields import Function
from ...problem_file.mesh_spec import PartName
from ...problem_file.term_parts import Weight
from .base import Term

if TYPE_CHECKING:
    from ...objective.terms import Objective
    from ..objective_builder import ObjectiveBuilder


class PythonTerm(Term):
    """weight int density(u, grad, v, x), a function of your own. Runs the code of the file it is in."""

    kind: Literal["python"]
    python: Annotated[Any, Function()] = Field(description="The function, file.py:name.")
    on: PartName | None = Field(
        default=None, description="Subdomain or part of the boundary of the integral; null for the whole domain."
    )
    weight: Weight = Field(default=1.0, description="Factor of the term.")

    def build(self, key: str, builder: ObjectiveBuilder) -> Objective:
        from ...objective.terms import Objective
        from ...objective.trial import trial_of_density
        from ..python_code import load_function
        from ..python_terms import UserDensity

        if self.on is not None and self.on in builder.state.domain.inside:
            message = (
                f"expected a subdomain or a part of the boundary, found {self.on!r}, which lies inside the domain: "
            )
            builder.values.complain(f"{key}.on", message + "gradients differ on its two sides")
        name = Function.written(self.python)
        function = load_function(builder.values.file, f"{key}.python", self.python)

        density = UserDensity(function, builder.state.groups)
        found = replace(builder.integral(density, key, self.on, self.weight), name=name)
        problem, depends = trial_of_density(name, found, density.arguments)
        builder.joint_control = builder.joint_control or depends
        if problem:
            builder.values.complain(f"{key}.python", problem)
        return Objective((), (), (found,))
