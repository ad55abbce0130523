"""Which outer method a run takes, and its options."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..engine.oracle import AffineOracle, Oracle, SecondOrderOracle
from ..engine.outer.base import Need, OuterMethod, Setting
from ..problem_file.catalogue import OUTER_METHODS, found_at
from ..problem_file.control_spec import ConductivityControl, DensityControl, LogConductivityControl
from ..problem_file.loading import ProblemFile


def choose_outer(file: ProblemFile, setting: Setting, oracle: Oracle[Any, Any]) -> OuterMethod[Any]:
    """The outer method that a file asks for, with its options."""
    spec = file.spec.outer
    name = spec.method if spec.method != "auto" else _automatic(file, setting, oracle)
    outer: OuterMethod[Any] = found_at(OUTER_METHODS[name]).suited(setting)
    given = {name: getattr(spec, name) for name in outer.options}
    return replace(outer, **{name: value for name, value in given.items() if value != "auto"})  # type: ignore[type-var]


def check_outer(file: ProblemFile, outer: OuterMethod[Any], setting: Setting, oracle: Oracle[Any, Any]) -> None:
    """Refuse an outer method that does not take what the problem has.

    Raises:
        ProblemError: at `outer.method`.
    """

    def refuse(message: str) -> None:
        raise file.error("outer.method", f"{message}, found {file.spec.outer.method!r}")

    if setting.smoothing is not None and "smoothing" not in outer.takes:
        refuse(f"expected {_listed(_taking('smoothing'), 'or')}, which alone takes a sensitivity filter")
    if setting.space is not None:
        for need, words in setting.space.needs.items():
            if need not in outer.takes:
                refuse(f"{_listed(_taking(need), 'and')} take {words}, no other method does")
        if objection := outer.objection(setting.space):
            refuse(objection)
    if outer.exact and not isinstance(oracle, AffineOracle):
        refuse(f"expected auto or lbfgs: {file.spec.method} has no products with a Hessian for conjugate gradients")
    if outer.second_order and not isinstance(oracle, SecondOrderOracle):
        others = [name for name, place in OUTER_METHODS.items() if not found_at(place)().second_order]
        refuse(f"expected {_listed(['auto', *others], 'or')}: {file.spec.method} has no products with a Hessian")


def _automatic(file: ProblemFile, setting: Setting, oracle: Oracle[Any, Any]) -> str:
    """The name of the outer method for a file that says `auto`."""
    if setting.space is not None and setting.space.constraint is not None:
        return "mma" if setting.smoothing is None else "oc"
    if not setting.searched:
        return "gradient"
    if file.spec.parameters:
        # Over scenarios nhgd alone has products with a Hessian: the Hessian of the nominal scenario.
        return "newton_cg" if file.spec.method == "nhgd" else "lbfgs"
    exact = file.spec.method in ("nhgd", "adjoint") and file.spec.state is None
    if exact and (_steep(file) or _inversion(file) or _convective(file)):
        return "newton_cg"
    return _of_quadratic(setting, oracle) if exact else "lbfgs"


def _of_quadratic(setting: Setting, oracle: Oracle[Any, Any]) -> str:
    """The method for a quadratic objective whose products with the Hessian are exact, and else `lbfgs`.

    Conjugate gradients take the iterations of L-BFGS without its evaluations; the active set method, between bounds and
    with an l1 term, takes fewer.
    """
    space, follows = setting.space, isinstance(oracle, AffineOracle) and oracle.follows
    if space is None or not space.quadratic or setting.smoothing is not None or not follows:
        return "lbfgs"
    if space.smooth:
        return "conjugate_gradient"
    return "active_set" if space.penalty is not None else "lbfgs"


def has_design(file: ProblemFile) -> bool:
    """Whether a control is the density of a material."""
    return any(isinstance(each, DensityControl) for each in file.spec.controls)


def _steep(file: ProblemFile) -> bool:
    """Whether a term is too strongly curved for secants, which is no obstacle to Newton's method.

    Such terms are the penalty of a state constraint, a total variation, and a penalised gradient beside bounds. With
    bounds, steps have to be taken in L2, in which the curvature of a penalised gradient has no bound.
    """
    spec = file.spec
    norms = {getattr(term, "norm", None) for term in spec.objective if getattr(term, "weight", 0.0) != 0.0}
    bounded = any(bound is not None for each in spec.controls for bound in each.bounds) and not has_design(file)
    return spec.bounds_state or "tv" in norms or ("h1" in norms and bounded)


def _inversion(file: ProblemFile) -> bool:
    """Whether a control is a conductivity.

    With little regularisation secants do not learn its Hessian in any reasonable number of iterations; products with it
    do, and cost fewer factorisations throughout (docs/verification.md has the figures).
    """
    return any(isinstance(each, ConductivityControl | LogConductivityControl) for each in file.spec.controls)


def _convective(file: ProblemFile) -> bool:
    """Whether the state is a flow that carries itself.

    Every iteration of L-BFGS enlarges the difference of two runs with different rounding errors about seven times;
    Newton's method takes a tenth of the iterations and half of the time (docs/verification.md, "Units").
    """
    return file.spec.convective


def _taking(need: Need) -> list[str]:
    return [name for name, place in OUTER_METHODS.items() if need in found_at(place).takes]


def _listed(names: list[str], word: str) -> str:
    """`a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
