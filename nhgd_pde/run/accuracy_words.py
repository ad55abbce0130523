"""The sentence on the errors of the objective at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..output.counting_digits import with_uncertainty


def trust_sentence(stats: Mapping[str, Any]) -> str:
    """One sentence on the errors of the objective, for the end of a run; empty where nothing was estimated."""
    errors, digits = stats.get("errors"), stats.get("digits")
    if not errors or digits is None:
        missing = stats.get("discretisation_missing")
        return f"no estimate of the error that the mesh leaves: {missing}" if missing else ""
    value, error = stats["objective"], errors["discretisation"]
    others = {
        "estimate": "uncertain by",
        "sampling": "the sample",
        "optimisation": "the optimiser",
        "algebraic": "the linear systems",
    }
    listed = "".join(f", {name} {errors[key]:.0e}" for key, name in others.items() if errors[key] is not None)
    count = "no digit counts" if digits == 0 else f"{digits} digit{'s count' if digits > 1 else ' counts'}"
    if digits == 0 and errors["optimisation"] is None:
        listed += ", the one of the optimiser is not known"
    relative = f" ({100.0 * error / abs(value):.2g} %)" if value else ""
    total = sum(each for each in errors.values() if each is not None)
    written = with_uncertainty(value, total)
    return f"objective {written}: the mesh leaves an error of about {error:.1e}{relative}{listed}; {count}"
