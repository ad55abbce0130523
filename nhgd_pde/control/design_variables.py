"""Methods of problems that are called with design variables and work with the controls that these stand for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def of_controls(*names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a method of a problem whose arguments of these names are design variables.

    The method is given the controls that the design variables stand for, such as filtered densities. The problem has
    them from its `control`.
    """

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        parameters = list(signature(method).parameters)

        @wraps(method)
        def with_controls(*arguments: P.args, **named: P.kwargs) -> T:
            problem: Any = arguments[0]

            def entered(name: str, given: Any) -> Tensor | Any:
                return problem.control.physical(given) if name in names else given

            in_place: Any = [entered(name, given) for name, given in zip(parameters, arguments, strict=False)]
            by_name: Any = {name: entered(name, given) for name, given in named.items()}
            return method(*in_place, **by_name)

        return with_controls

    return decorate
