"""Overlapping names of a mesh: the rule is reported, and results that would depend on the order are mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem
import torch
from mesh_files import grid, on_plane, read, value

from nhgd_pde import load, solve
from nhgd_pde.building.blueprint import build_on
from nhgd_pde.problem_file.errors import ProblemError

FAULTS = Path(__file__).parent / "faults"


def overlapping(**changes: object) -> Any:
    return load(FAULTS / "ovb.yaml", {key.replace("__", "."): value for key, value in changes.items()})


def test_two_fluxes_on_one_side_are_added_and_reported() -> None:
    """u = 2 x: int u^2 / 2 = 2/3."""
    found = solve(overlapping())
    assert found.objective == pytest.approx(2 / 3, rel=1e-6)
    words = "there the neumann condition of right and the neumann condition of outlet add up"
    assert found.stats["warnings"] == [f"right and outlet share 8 facets; {words}"]
    assert not overlapping(pde__boundary__outlet__neumann=0).pde.notices


def test_a_dirichlet_condition_overrides_a_flux_and_is_reported() -> None:
    """In any order, u = 3 x and int u^2 / 2 = 3/2."""
    fixed, flux = {"dirichlet": 3}, {"neumann": 100}
    for right, outlet in ((fixed, flux), (flux, fixed)):
        found = overlapping(pde__boundary={"left": {"dirichlet": 0}, "right": right, "outlet": outlet})
        assert value(found) == pytest.approx(1.5)
        (told,) = found.pde.notices
        assert told.startswith("right and outlet share 8 facets; there the dirichlet condition of ")
        assert "and the neumann condition of " in told and told.endswith("has no effect")


def test_values_that_differ_on_the_same_facets_are_a_mistake() -> None:
    def given(right: object, outlet: object) -> Any:
        boundary = {"left": {"dirichlet": 0}, "right": {"dirichlet": right}, "outlet": {"dirichlet": outlet}}
        return overlapping(pde__boundary=boundary)

    for right, outlet in ((1, 1.0), ("y", "0 + y"), ("x", 1), ("x + 1e-15", "1")):
        assert not given(right, outlet).pde.notices
    for right, outlet, found in ((1, 2, r"1 and 2 at \(1, 0\)"), ("y", "y*y", r"y and .* at \(1, 0.125\)")):
        with pytest.raises(ProblemError, match=f"outlet.dirichlet: right and outlet share 8 facets, .* found {found}"):
            given(right, outlet)


def test_overlapping_controls_and_terms_are_reported() -> None:
    boundary = {"left": {"dirichlet": 0}, "right": {"neumann": 1}}
    sides = [{"kind": "neumann", "on": "right"}, {"kind": "neumann", "on": "outlet", "name": "second"}]
    notices = overlapping(pde__boundary=boundary, control=sides, objective__1__control=None).pde.notices
    assert notices == (
        "right and outlet share 8 facets; there the neumann condition of right and control.1 add up",
        "right and outlet share 8 facets; there control.0 and control.1 add up",
    )
    terms = [{"kind": "tracking", "target": 0, "on": name} for name in ("right", "outlet")]
    objective = [*terms, {"kind": "regularisation", "weight": 1}]
    assert overlapping(pde__boundary=boundary, objective=objective).pde.notices == (
        "right and outlet share 8 facets, which count in objective.0 and in objective.1",
    )
    fixing = [{"kind": "dirichlet", "on": "right"}, {"kind": "dirichlet", "on": "outlet", "name": "second"}]
    left = {"left": {"dirichlet": 0}}
    (told,) = overlapping(pde__boundary=left, control=fixing, objective__1__control=None).pde.notices
    assert told == "right and outlet share 8 facets; there u is the mean of the values of control.0 and control.1"
    given = {**left, "right": {"dirichlet": 1}}
    (told,) = overlapping(pde__boundary=given, control={"kind": "dirichlet", "on": "outlet"}).pde.notices
    assert told == "right and outlet share 8 facets; there control adds to the values of right"


def doubled(**changes: object) -> Any:
    boundary = {"left": {"dirichlet": 0}}
    return load(
        FAULTS / "dup.yaml", {"pde.boundary": boundary, **{key.replace("__", "."): changes[key] for key in changes}}
    )


@pytest.mark.parametrize("name", ["conductivity", "source", "reaction"])
def test_cells_with_two_values_are_a_mistake(name: str) -> None:
    words = rf"pde.{name}.b: a and b share 40 cells: expected the same value there, .* found 1 and 2"
    with pytest.raises(ProblemError, match=words):
        doubled(**{f"pde__{name}": {"a": 1, "b": 2}})
    assert doubled(**{f"pde__{name}": {"a": "2", "b": 2.0}})
    assert doubled(**{f"pde__{name}": {"b": 2, "default": 1}})


def test_a_subdomain_named_default_is_ambiguous() -> None:
    points, cells, kind = grid("triangle")
    mesh = meshio.Mesh(points, [(kind, cells)], cell_sets={"default": [[0, 1]]})
    file = load(
        FAULTS / "tags.yaml", {"pde.conductivity": {"default": 1}, "pde.boundary": {"all": {"dirichlet": 0}}}
    ).file
    with pytest.raises(ProblemError, match=r"conductivity.default: expected subdomains with other names"):
        build_on(file, read(mesh), torch.device("cpu"))


def test_controls_of_the_same_cells() -> None:
    sources = [{"kind": "source", "on": "a"}, {"kind": "source", "on": "b", "name": "second"}]
    notices = doubled(control=sources, objective__1__control=None).pde.notices
    assert notices == ("a and b share 40 cells; there control.0 and control.1 add up",)
    densities = [{"kind": "density", "low": 0.1, "on": name, "name": name} for name in "ab"]
    with pytest.raises(
        ProblemError, match=r"control.1.on: expected cells whose coefficient no other .* 40 cells of control.0"
    ):
        doubled(control=densities, objective__1__control="a")


def test_names_in_space_overlap_in_the_same_way(tmp_path: Path) -> None:
    points, cells, kind = grid("tetra", 2)
    right = on_plane("tetra", 0, 1.0, 2)
    left = on_plane("tetra", 0, 0.0, 2)
    sets = {"left": [[], np.arange(8)], "right": [[], np.arange(8, 16)], "outlet": [[], np.arange(10, 16)]}
    mesh = meshio.Mesh(points, [(kind, cells), ("triangle", np.concatenate([left, right]))], cell_sets=sets)
    found = read(mesh)
    assert found.overlaps == ["right and outlet share 6 facets"]
    assert str(found).endswith("subdomains: none; right and outlet share 6 facets")
    assert isinstance(found.mesh, skfem.MeshTet1)
