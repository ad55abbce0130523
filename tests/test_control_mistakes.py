"""Mistakes in the section of the controls."""

from __future__ import annotations

from typing import Any

import pytest
from controls import CONDUCTIVITY, EXCHANGE, FLUX, LEFT, LINE, LOG, MIXED, NUMBER, WALL

from problems import complaints


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            {"control": {"kind": "neumann", "on": "tp"}},
            "control.on: unknown boundary 'tp' (did you mean 'top'?); this mesh has: all, bottom, left, right, top",
        ),
        (
            {"control": {"kind": "neumann", "on": "top"}},
            "control.on: expected a part of the boundary where u is free, found 'top', where pde.boundary.all fixes "
            "it; give top a condition of its own",
        ),
        (
            {"pde.boundary": LEFT, "control": {"kind": "neumann", "on": "left"}},
            "control.on: expected a part of the boundary where u is free, found 'left', where pde.boundary.left fixes "
            "it",
        ),
        (
            {
                "pde.boundary": LEFT,
                "control": [{"kind": "dirichlet", "on": "top"}, {"kind": "neumann", "on": "top"}],
            },
            "control.1.on: expected a part of the boundary where u is free, found 'top', where control.0 fixes it",
        ),
        (
            {
                "pde.boundary": {each: {"dirichlet": 0} for each in ("left", "right", "top", "bottom")},
                "control": {"kind": "neumann", "on": "all"},
            },
            "control.on: expected facets to act on, found none: as in pde.boundary, 'all' leaves out "
            "left, right, top, bottom",
        ),
        (
            {"pde.boundary": {**LEFT, "top": {"neumann": 1}}, "control": {"kind": "dirichlet", "on": "top"}},
            "pde.boundary.top: expected a dirichlet condition or none on 'top', whose values control controls; "
            "found neumann",
        ),
        (
            {"pde.boundary": LEFT, "control": {"kind": "robin", "on": "right"}},
            "control.on: expected a robin condition on 'right', whose value a robin control changes; found none",
        ),
        (
            {**EXCHANGE, "pde.boundary.right.robin.coefficient": 0},
            "pde.boundary.right.robin.coefficient: expected a coefficient that is not zero everywhere, as a robin "
            "control acts through it",
        ),
        (
            {**EXCHANGE, "control.kind": "neumann"},
            "pde.boundary.right: expected a neumann condition or none on 'right', which a neumann control acts on",
        ),
        (
            {"control.gain": "0*x"},
            "control.gain: expected a gain that is not zero wherever the control acts, found 0*x",
        ),
        (
            {**WALL, "control.gain": 0},
            "control.gain: expected a gain that is not zero wherever the control acts, found 0",
        ),
        (
            {"control": {"kind": "conductivity", "initial": 1}},
            "control.bounds: expected a positive lower bound for a conductivity, found null",
        ),
        (
            {**CONDUCTIVITY, "control.bounds": [0, 1]},
            "control.bounds: expected a positive lower bound for a conductivity, found 0",
        ),
        (
            {**CONDUCTIVITY, "pde.conductivity": 2},
            "pde.conductivity: expected none, as control makes the conductivity of every cell",
        ),
        (
            {"control": [{**CONDUCTIVITY["control"]}, {**LOG["control"]}]},
            "control.1.on: expected cells whose conductivity no other control makes, found some of control.0",
        ),
        (
            {"control": [{"kind": "source"}, {"kind": "source"}]},
            "control.1.name: expected names that differ, found 'source' twice: give the controls names",
        ),
        (
            {"control": {"kind": "parameter", "name": "a"}},
            "control.name: expected a parameter that an expression of pde uses, found 'a'",
        ),
        (
            {**NUMBER, "objective.0.target": "a"},
            "objective.0.target: expected an expression without parameters here, found 'a'",
        ),
        ({**NUMBER, "control.initial": "x"}, "control.initial: expected a number for a parameter, found x"),
        (
            {**NUMBER, "control.name": "pi"},
            "control.name: the name 'pi' is taken: it means something else in expressions",
        ),
        (
            {"control": {"kind": "source", "space": "time"}},
            "control.space: expected a problem with time, found a steady one",
        ),
        (
            {"control": {"kind": "source", "space": "constant", "initial": "1 + x"}},
            "control.initial: expected a number, as the control is one, found 1 + x",
        ),
        (
            {"control": {"kind": "source", "space": "constant", "bounds": ["x", 3]}},
            "control.bounds.0: expected a number, as the control is one, found x",
        ),
        (
            {"control.space": "constant", "objective.1.reference": "x"},
            "objective.1.reference: expected a number, as the control is one, found x",
        ),
        (
            {**LINE, **FLUX, "objective.1.norm": "h1"},
            "objective.1.norm: expected l2 or l1 for a control of points, which has no gradient, found 'h1'",
        ),
        (
            {**FLUX, "control.space": "P0", "objective.1.norm": "h1"},
            "objective.1.norm: expected l2 or l1 for a P0 control, which has no gradient, found 'h1'",
        ),
        (
            {**MIXED, "objective.1.control": "g"},
            "objective.1.control: expected the name of a control (f, a, neumann, robin, dirichlet), found 'g'",
        ),
    ],
)
def test_mistakes_in_controls_are_named(overrides: dict[str, Any], expected: str) -> None:
    assert expected in complaints(overrides)
