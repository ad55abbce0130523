"""Presets: values of several keys by one word. Keys that a file gives itself keep their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# `paper` is Algorithm 1 of arXiv 2602.10905: stochastic gradient steps in the plain inner product, each of which adds
# its gradient to the inverse as a score, and the hypergradient by A grad_u f and the running cross derivative.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "inner": {"optimiser": "sgd", "metric": "identity", "tests": 1},
        "curvature": {"kind": "dense", "prior": "identity", "scores": "observed", "forgetting": None, "lambda": 1.0},
        "hypergradient": {"refine": "off", "debias": False, "cross": "running"},
        "outer": {"method": "gradient"},
    }
}


def with_preset(data: Any) -> Any:
    """The content of a file with the values of its preset where it gives none."""
    preset = PRESETS.get(str(data.get("preset"))) if isinstance(data, Mapping) else None
    return data if preset is None else with_defaults(data, preset)


def with_defaults(data: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a file with other defaults of keys in sections."""
    filled = dict(data)
    for section, values in defaults.items():
        given = filled.get(section, {})
        if isinstance(given, Mapping):
            filled[section] = {**values, **given}
    return filled
