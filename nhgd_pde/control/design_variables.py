"""Methods of problems that are called with design variables and work with the controls that these stand for."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


def of_controls(*names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a method of a problem whose arguments of these names are design variables.

    The method is given the controls that the design variables stand for, such as filtered densities. The problem has
    them from its `control`.
    """

    def decorate(method: Callable[P, T]) -> Callable[P, T]:
        parameters = list(signature(method).parameters)
        places = [parameters.index(name) for name in names]

        @wraps(method)
        def with_controls(*arguments: P.args, **named: P.kwargs) -> T:
            in_place, by_name, problem = list(arguments), dict(named), cast(Any, arguments[0])
            for place, name in zip(places, names, strict=True):
                if place < len(in_place):
                    in_place[place] = problem.control.physical(in_place[place])
                elif name in by_name:
                    by_name[name] = problem.control.physical(by_name[name])
            return cast(Callable[..., T], method)(*in_place, **by_name)

        return with_controls

    return decorate
