"""The same problem in other units: objective times c, control times s, lengths times L."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

import nhgd_pde as nhgd
from nhgd_pde.building.text_table import read_text_table

# Coarse meshes and few scenarios, so that every problem takes a second or two.
SMALL: dict[str, dict[str, Any]] = {
    "adaptive_3d": {"mesh.cells": [2, 2, 2], "mesh.adapt": {"tolerance": 0.2, "cells": 300}},
    "advection_control": {"mesh.cells": [12, 12]},
    "allen_cahn_control": {"mesh.cells": [6, 6], "time.steps": 8},
    "burgers_control": {"mesh.cells": 16, "time.steps": 10},
    "cvar_control": {"mesh.cells": [8, 8], "scenarios.count": 16},
    "darcy_wells": {"mesh.cells": [20, 10], "scenarios.count": 32},
    "dirichlet_control": {"mesh.cells": [12, 12]},
    "elastic_control": {"mesh.cells": [12, 3]},
    "flow_in_time": {"mesh.cells": [4, 4], "time.steps": 4},
    "heat_boundary": {"mesh.cells": [6, 6], "time.steps": 8},
    "heat_control": {"mesh.cells": 16, "time.steps": 10},
    "heat_initial": {"mesh.cells": [8, 8], "time.steps": 8},
    "heat_sink": {"mesh.cells": [10, 10]},
    "heat_windows_fds": {"mesh.cells": 16, "time.steps": 100},
    "heat_inversion": {"mesh.cells": [8, 8], "time.steps": 10},
    "helmholtz_control": {"mesh.cells": [10, 10]},
    "image_target": {"mesh.cells": [12, 12]},
    "insulated_wall": {"mesh.cells": [8, 2]},
    "l_shape_adaptive": {"mesh.adapt.tolerance": 0.1},
    "inversion_posterior": {"mesh.cells": [12, 12]},
    "log_conductivity_inversion": {"mesh.cells": [12, 12]},
    "mbb_beam": {"mesh.cells": [24, 8]},
    "minimal_surface": {"mesh.cells": [8, 8]},
    "navier_stokes_control": {"mesh.cells": [6, 6]},
    "neumann_control": {"mesh.cells": [12, 12]},
    "parameter_fit": {"mesh.cells": [12, 12]},
    "periodic_cell": {"mesh.cells": [8, 8]},
    "poisson_bounds": {"mesh.cells": [12, 12]},
    "poisson_control": {"mesh.cells": [12, 12]},
    "poisson_control_3d": {"mesh.cells": [6, 6, 6]},
    "poisson_nhgd_paper": {"mesh.cells": [8, 8], "outer.iterations": 5},
    "poisson_plate": {},
    "robust_poisson": {"mesh.cells": [10, 10], "scenarios.count": 32},
    "robust_poisson_3d": {"mesh.cells": [5, 5, 5], "scenarios.count": 32},
    "robust_topology": {"mesh.cells": [10, 10]},
    "sensor_placement": {"mesh.cells": [12, 12]},
    "semilinear_control": {"mesh.cells": [12, 12]},
    "sparse_control": {"mesh.cells": [12, 12]},
    "state_constraint": {"mesh.cells": [12, 12], "constraints.0.tolerance": 1e-8},
    "stokes_control": {"mesh.cells": [6, 6]},
    "switched_heaters": {"mesh.cells": 16, "population.members": 3, "population.generations": 1},
    "transport_control": {"mesh.cells": [8, 8], "time.steps": 8},
    "uncertain_source": {"mesh.cells": [20, 10], "scenarios.count": 16},
    "wave_source": {"mesh.cells": [8, 8], "time.steps": 8},
}


def content(path: Path) -> dict[str, Any]:
    """The content of a shipped problem file."""
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def times(value: Any, factor: float) -> Any:
    """A number, an expression, or a list of these, multiplied by a factor; null stays null."""
    if value is None:
        return None
    if isinstance(value, list):
        return [times(each, factor) for each in value]
    if isinstance(value, dict):
        return {name: times(each, factor) for name, each in value.items()}
    return f"({value})*{factor!r}" if isinstance(value, str) else value * factor


def objective_times(path: Path, c: float) -> dict[str, Any]:
    """Overrides that multiply the objective by c."""
    data = content(path)
    terms = []
    for term in data["objective"]:
        weight = term.get("weight", 1.0)
        terms.append({**term, "weight": times(weight, c)})
    return {"objective": terms, **inference_times(data, c)}


def inference_times(data: dict[str, Any], c: float, length: float = 1.0) -> dict[str, Any]:
    """Overrides that multiply the term of the prior by c, and its correlation length by a length."""
    if "inference" not in data:
        return {}
    prior = data["inference"]["prior"]
    changed = {**prior, "std": prior["std"] / math.sqrt(c), "length": prior["length"] * length}
    return {"inference": {**data["inference"], "prior": changed, "predict": []}}


def control_times(path: Path, s: float) -> dict[str, Any] | None:
    """Overrides that multiply the control by s and change nothing else; None where this is not possible.

    It is not possible for densities, for the logarithm of a conductivity, and for actuators and terms in Python.
    """
    data = content(path)
    controls = data["control"] if isinstance(data["control"], list) else [data["control"]]
    if any(term["kind"] == "python" for term in data["objective"]):
        return None
    changed, parameters = [], {}
    for each in controls:
        if each["kind"] not in ("source", "neumann", "dirichlet", "parameter"):
            return None
        new = dict(each)
        if each["kind"] == "parameter":
            parameters[each["name"]] = s
        else:
            new["gain"] = times(each.get("gain", 1), 1.0 / s)
        if "initial" in each:
            new["initial"] = times(each["initial"], s)
        if "bounds" in each:
            new["bounds"] = times(each["bounds"], s)
        changed.append(new)
    terms = []
    for term in data["objective"]:
        if term["kind"] == "regularisation":
            power = 1 if term.get("norm", "l2") in ("l1", "tv") else 2
            term = {**term, "weight": term["weight"] / s**power}
        terms.append(term)
    overrides: dict[str, Any] = {
        "objective": terms,
        "control": changed if isinstance(data["control"], list) else changed[0],
    }
    if parameters:
        overrides["pde"] = renamed(data["pde"], {name: f"({name}/{s!r})" for name in parameters})
    return overrides


def renamed(value: Any, names: dict[str, str]) -> Any:
    """A section with names replaced in every expression."""
    if isinstance(value, dict):
        return {key: renamed(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [renamed(each, names) for each in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\b(" + "|".join(names) + r")\b", lambda found: names[found[0]], value)


# The power of L by which each quantity is multiplied, where lengths are multiplied by L and the objective by L^d.
# Times, sources and controls do not change, nor do states that are not velocities.
_POWERS: dict[str, dict[str, int]] = {
    "poisson": {"conductivity": 2},
    "semilinear": {"conductivity": 2},
    "advection_diffusion": {"conductivity": 2, "velocity": 1},
    "heat": {"conductivity": 2},
    "burgers": {"viscosity": 2, "source": 1, "state": 1, "control": 1},
    "elasticity": {"young": 2},
    "helmholtz": {"conductivity": 2},
    "stokes": {"viscosity": 2},
    "wave": {"conductivity": 2},
    "navier_stokes": {"viscosity": 2, "source": 1, "state": 1, "control": 1},
}
_ONE = {"conductivity", "young", "viscosity"}
_DIMENSIONS = {"interval": 1, "rectangle": 2, "l_shape": 2, "box": 3}


def lengths_times(path: Path, length: float, folder: Path) -> tuple[dict[str, Any], float, float] | None:
    """Overrides that multiply all lengths by L; None where this is not the same problem.

    It is not possible for Allen-Cahn, whose two terms have one coefficient, for Python code and for mesh files.

    Args:
        path: a shipped problem.
        length: L.
        folder: a folder for files of sensors.

    Returns:
        The overrides, and the factor and the shift of the control in the new problem.
    """
    data = content(path)
    kind = data["pde"].get("kind")
    if kind not in _POWERS or "file" in data["mesh"] or any(term["kind"] == "python" for term in data["objective"]):
        return None
    data = {
        key: value if key in ("mesh", "name", "data") else renamed(value, {x: f"({x}/{length!r})" for x in "xyz"})
        for key, value in data.items()
    }
    powers, dim = _POWERS[kind], _DIMENSIONS[data["mesh"]["kind"]]
    state, of_control = length ** powers.get("state", 0), powers.get("control", 0)
    controls = data["control"] if isinstance(data["control"], list) else [data["control"]]
    kinds = {each["kind"] for each in controls} | {"windows" for each in controls if each.get("space") == "time"}
    changed = [_longer_control(each, length) for each in controls]
    overrides: dict[str, Any] = {
        "mesh": _longer_mesh(data["mesh"], dim, length),
        "pde": _longer_pde(data["pde"], kinds, dim, length, state),
        "control": changed if isinstance(data["control"], list) else changed[0],
        "objective": [
            _longer_term(term, path, kinds, of_control, dim, length, state, folder) for term in data["objective"]
        ],
        "constraints": [
            {key: times(value, state) if key in ("upper", "lower") else value for key, value in each.items()}
            for each in data.get("constraints", [])
        ],
        "parameters": {name: _longer_input(each, length) for name, each in data.get("parameters", {}).items()},
        "parts": data.get("parts", {}),
        **inference_times(data, length**dim, length),
    }
    sides = {name for name, each in data.get("parts", {}).items() if "boundary" in each}
    overrides["objective"] = [
        {**term, "weight": times(term.get("weight", 1), length)} if term.get("on") in sides else term
        for term in overrides["objective"]
    ]
    if "time" in data:
        overrides["time"] = {**data["time"], "initial": times(data["time"].get("initial", 0), state)}
    shift = 2.0 * math.log(length) if "log_conductivity" in kinds else 0.0
    return overrides, length**of_control, shift


def _longer_mesh(mesh: dict[str, Any], dim: int, length: float) -> dict[str, Any]:
    size = mesh.get("size", 1 if dim == 1 or mesh["kind"] == "l_shape" else [1] * dim)
    return {
        **mesh,
        "size": times(size, length),
        **({"origin": times(mesh["origin"], length)} if "origin" in mesh else {}),
    }


def _longer_pde(pde: dict[str, Any], kinds: set[str], dim: int, length: float, state: float) -> dict[str, Any]:
    new = dict(pde)
    for name, power in _POWERS[pde["kind"]].items():
        controlled = name in ("conductivity", "young") and kinds & {"conductivity", "log_conductivity"}
        if name in pde or (name in _ONE and not controlled and not (name == "conductivity" and "density" in kinds)):
            new[name] = times(pde.get(name, 1), length**power)
    new["boundary"] = {}
    for side, condition in pde.get("boundary", {}).items():
        each = dict(condition)
        if "dirichlet" in each:
            each["dirichlet"] = times(each["dirichlet"], state)
        if "neumann" in each:
            each["neumann"] = times(each["neumann"], length)
        if "robin" in each:
            each["robin"] = {**each["robin"], "coefficient": times(each["robin"]["coefficient"], length)}
        new["boundary"][side] = each
    if "points" in pde:
        loads = [times(each["load"], length**dim) if "load" in each else None for each in pde["points"]]
        new["points"] = [
            {**each, "at": times(each["at"], length), **({"load": load} if load is not None else {})}
            for each, load in zip(pde["points"], loads, strict=True)
        ]
    return new


def _longer_control(control: dict[str, Any], length: float) -> dict[str, Any]:
    new = dict(control)
    if control["kind"] == "neumann":
        new["gain"] = times(control.get("gain", 1), length)
    if control["kind"] == "log_conductivity":
        new["initial"] = f"{control.get('initial', 0)} + {2.0 * math.log(length)!r}"
    if control["kind"] == "density" and "filter_radius" not in control:
        # A conductivity lies between two values; for Young's modulus they are relative to the solid.
        new["low"], new["high"] = times(control["low"], length**2), times(control.get("high", 1), length**2)
    if "filter_radius" in control:
        new["filter_radius"] = control["filter_radius"] * length
    return new


def _longer_term(
    term: dict[str, Any],
    path: Path,
    kinds: set[str],
    of_control: int,
    dim: int,
    length: float,
    state: float,
    folder: Path,
) -> dict[str, Any]:
    new = dict(term)
    if "at" in term:
        table = read_text_table(path.parent / term["at"])
        table.rows[:, :dim] *= length
        new["at"] = str(folder / f"{path.stem}.csv")
        np.savetxt(new["at"], table.rows, delimiter=",", fmt="%.17g", header=",".join(table.names), comments="")
        # A sum over sensors is not an integral.
        new["weight"] = times(term.get("weight", 1.0), length**dim)
    if "target" in term:
        new["target"] = times(term["target"], state)
    if term["kind"] == "regularisation":
        power = {"l2": 0, "l1": 0, "h1": 2, "tv": 1}[term.get("norm", "l2")]
        # Integrals over the boundary have another power; squares of velocities as controls and states have the same.
        power += 1 if kinds & {"neumann", "dirichlet", "robin"} else 0
        # The square of a number in time is no integral in space.
        power += dim if "windows" in kinds else 0
        new["weight"] = term["weight"] * length**power
    return new


def _longer_input(parameter: Any, length: float) -> Any:
    if "field" not in parameter:
        return parameter
    return {"field": {**parameter["field"], "length": parameter["field"]["length"] * length}}


def solved(path: Path, *overrides: dict[str, Any]) -> nhgd.Solution:
    """The solution of a shipped problem on its coarse mesh, with sections replaced."""
    together: dict[str, Any] = {}
    for each in (*overrides, SMALL[path.stem]):
        together |= each
    return nhgd.solve(nhgd.load(path, together))
