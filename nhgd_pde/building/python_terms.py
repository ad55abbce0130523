"""Terms of the objective that are functions of users: the fields of the state that these are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ..fem.state_space import FieldGroup


@dataclass(frozen=True)
class UserDensity:
    """A function (u, grad, v, x) of a user as a density of state and control.

    u and grad are those of the first group of fields, such as the velocities of a flow. The others are given by name to
    a function that has parameters of their names: `pressure`, and `pressure_grad` for its gradient.

    Attributes:
        function: the function of the user.
        groups: the groups of fields of the state.
    """

    function: Callable[..., Any]
    groups: Sequence[FieldGroup]

    def __call__(self, u: Tensor, grad: Tensor, v: Tensor, grad_v: Tensor, x: Tensor) -> Tensor:
        found = self._found(u, grad, v, x)
        if not isinstance(found, Tensor):
            raise TypeError(f"the result is a {type(found).__name__}; expected a torch tensor")
        return found

    def _found(self, u: Tensor, grad: Tensor, v: Tensor, x: Tensor) -> object:
        first = self.groups[0].components
        if len(self.groups) == 1:
            return self.function(u, grad, v, x)
        named: dict[str, Tensor] = {}
        for group in self.groups[1:]:
            where = first if group.components == 1 else slice(first, first + group.components)
            named |= {group.name: u[where], f"{group.name}_grad": grad[where]}
            first += group.components
        count = self.groups[0].components
        own = 0 if count == 1 else slice(count)
        wanted = {name: values for name, values in named.items() if name in self._parameters}
        return self.function(u[own], grad[own], v, x, **wanted)

    @cached_property
    def _parameters(self) -> set[str]:
        """The names of the parameters of the function; with **kwargs all names that it can be given."""
        try:
            parameters = inspect.signature(self.function).parameters
        except (TypeError, ValueError):
            return set()
        if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
            return {name for group in self.groups for name in (group.name, f"{group.name}_grad")}
        return set(parameters)

    @property
    def arguments(self) -> str:
        """A description of the arguments for messages; empty where the state is one group of fields."""
        if len(self.groups) == 1:
            return ""
        further = [f"{name}{suffix}" for name in (group.name for group in self.groups[1:]) for suffix in ("", "_grad")]
        first = self.groups[0]
        return (
            f"u and grad are those of the {first.name} alone, of {first.components} components, and "
            f"{' and '.join(further)} are given to a function that has parameters of these names"
        )
