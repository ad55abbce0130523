"""Every shipped problem: it converges with its defaults, to the optimum that the exact adjoint finds."""

from __future__ import annotations

from pathlib import Path

import pytest

import nhgd_pde as nhgd
from benchmarks.shipped import PROBLEMS, UNCONVERGED, agreement
from tests.units import SMALL

PATHS = [path for path in PROBLEMS if path.stem not in UNCONVERGED]
paths = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
# Designs, which moving asymptotes find: the objective of the published ones, and the largest violation of the volume.
DESIGNS = {"mbb_beam": (233.71, 1e-6), "heat_sink": (1.45e-4, 1e-9)}


@pytest.mark.slow
@paths
def test_the_default_method_finds_the_optimum_of_the_exact_adjoint(path: Path) -> None:
    ours, _, fault = agreement(path)
    assert not fault
    assert ours.certificate.state_residual <= 1e-8 and ours.certificate.adjoint_residual <= 1e-8
    if path.stem in DESIGNS:
        published, violation = DESIGNS[path.stem]
        assert ours.objective < published
        assert ours.stats["constraints"][0]["violation"] < violation


@pytest.mark.slow
@paths
def test_every_derivative_of_a_shipped_problem_is_right(path: Path) -> None:
    """On small meshes: a derivative of the discrete equation is right on all meshes or on none."""
    verified = nhgd.verify(nhgd.load(path, SMALL[path.stem]))
    assert verified.passed, str(verified)


@paths
def test_a_shipped_problem_begins_with_a_comment_that_describes_it(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# yaml-language-server: $schema=schema.json"
    assert lines[1].startswith("# ") and len(lines[1]) > 20
    assert nhgd.load(path).name == path.stem
