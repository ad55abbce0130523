"""A deterministic solve loads what it uses: by the names of modules, not by seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "nhgd_pde"
PROBLEM = ROOT / "problems" / "poisson_control.yaml"
# Folders and modules of which a deterministic solve by the default method loads these modules at most.
LOADED = {
    "engine.scenarios": {"engine.scenarios", "engine.scenarios.team", "engine.scenarios.footprint"},
    "engine.roles": {"engine.roles", "engine.roles.failures"},
    "methods": {"methods", "methods.adjoint", "methods.compared_method"},
    "run.judging": set(),
    "run.judgement": set(),
    "run.launcher": set(),
    "run.curvature_role": set(),
    "run.recovery": set(),
    "bench": set(),
    "verification": set(),
    "choice.estimate": set(),
    "choice.scenario_method": set(),
}
# The largest number of modules of the package that such a solve loads.
MODULES = 308

CODE = """
import sys
from nhgd_pde.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
print("loaded:", *sys.modules)
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The modules that a solve on the command line has loaded at its end."""
    folder = tmp_path_factory.mktemp("startup") / "run"
    arguments = ["solve", str(PROBLEM), "--set", "mesh.cells=[8,8]", "--output", str(folder), "-q", "--no-figure"]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    command = [sys.executable, "-c", CODE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("part", sorted(LOADED))
def test_a_deterministic_solve_loads_what_it_uses(part: str, loaded: set[str]) -> None:
    place = f"{PACKAGE}.{part}"
    found = {name for name in loaded if name == place or name.startswith(f"{place}.")}
    assert {name.removeprefix(f"{PACKAGE}.") for name in found} <= LOADED[part]


def test_a_deterministic_solve_loads_no_statistics_and_no_pictures(loaded: set[str]) -> None:
    assert not loaded & {"scipy.stats", "scipy.optimize", "scipy.spatial", "matplotlib", "gmsh", "pyvista"}


def test_the_number_of_modules_does_not_grow(loaded: set[str]) -> None:
    assert "nhgd_pde.run.running" in loaded
    assert sum(name.partition(".")[0] == PACKAGE for name in loaded) <= MODULES


def test_importing_the_package_loads_none_of_its_modules() -> None:
    code = "import sys, nhgd_pde; print([name for name in sys.modules if name.startswith(('nhgd_pde.', 'torch'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
