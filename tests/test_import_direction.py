from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nhgd_pde"

# Folders and modules of the package, lowest first, and those that each may import besides itself.
ALLOWED = {
    "linalg": set(),
    "fem": {"linalg"},
    "pde": {"fem", "linalg"},
    "uncertainty": {"fem", "linalg"},
    "engine": {"linalg"},
    "methods": {"engine", "linalg"},
    "inner": {"engine", "fem", "linalg", "pde"},
    "control": {"fem", "linalg", "pde"},
    "objective": {"control", "fem", "linalg", "pde"},
    "output": set(),
}
ALLOWED["population"] = {"engine", "linalg"}
ALLOWED["pde_problem"] = {"control", "engine", "fem", "inner", "linalg", "objective", "pde"}
ALLOWED["scenario_problem"] = {"engine", "linalg", "objective", "pde_problem", "uncertainty"}
ALLOWED["horizon_steps"] = {"engine", "linalg", "objective", "pde"}
ALLOWED["horizon_problem"] = {"control", "horizon_steps", "objective", "pde", "pde_problem"}
ALLOWED["neural"] = {"engine", "linalg", "pde", "pde_problem"}
ALLOWED["verification"] = {"engine", "linalg", "methods", "pde_problem"}
ALLOWED["problem_file"] = {"linalg", "output"}
ALLOWED["tasks"] = {"engine", "linalg", "problem_file"}
ALLOWED["placement"] = {"engine", "linalg", "tasks"}
ALLOWED["building"] = ALLOWED["pde_problem"] | {"pde_problem", "problem_file", "scenario_problem", "uncertainty"}
ALLOWED["building"] |= {"horizon_problem", "horizon_steps", "inference"}
ALLOWED["choice"] = {
    "engine",
    "horizon_problem",
    "linalg",
    "methods",
    "neural",
    "pde_problem",
    "problem_file",
    "scenario_problem",
}
ALLOWED["choice"] |= {"control", "population"}
ALLOWED["bridges"] = {"engine", "horizon_problem", "linalg", "methods", "objective", "pde_problem", "scenario_problem"}
ALLOWED["inference"] = {"bridges", "linalg", "objective", "pde_problem"}
ALLOWED["problem"] = {"bridges", "building", "choice", "output", "pde_problem", "problem_file", "scenario_problem"}
ALLOWED["problem"] |= {"engine", "linalg"}
ALLOWED["task_problem"] = {"choice", "engine", "linalg", "output", "problem_file", "tasks"}
ALLOWED["run"] = {
    "building",
    "choice",
    "control",
    "engine",
    "fem",
    "horizon_problem",
    "linalg",
    "objective",
    "output",
    "pde_problem",
    "problem",
    "problem_file",
    "scenario_problem",
    "task_problem",
    "tasks",
    "uncertainty",
}
ALLOWED["discretisation"] = {"building", "control", "fem", "linalg", "pde", "pde_problem", "problem_file"}
ALLOWED["run"] |= {"discretisation"}
ALLOWED["reports"] = {"output", "problem_file"}
for part in ("problem", "task_problem"):
    ALLOWED[part] |= {"reports"}
ALLOWED["run"] |= {"inference", "placement", "population", "reports"}
ALLOWED["adaptive"] = {"building", "discretisation", "engine", "fem", "output", "pde_problem", "problem"}
ALLOWED["adaptive"] |= {"problem_file", "run"}
ALLOWED["bench"] = ALLOWED["run"] - {"control", "fem", "objective", "uncertainty"} | {"methods", "run"}


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, as dotted names below the package."""
    inside = path.relative_to(PACKAGE).parent.parts
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name.split(".") for alias in node.names]
            names |= {".".join(parts[1:]) for parts in found if parts[0] == PACKAGE.name}
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            if node.level:
                parts = [*inside[: len(inside) - node.level + 1], *parts]
            elif parts[:1] == [PACKAGE.name]:
                parts = parts[1:]
            else:
                continue
            # `from .. import x` imports the module x itself.
            names |= {".".join([*parts, alias.name]) for alias in node.names} if not parts else {".".join(parts)}
    return names


def files(part: str = "") -> list[Path]:
    single = PACKAGE / f"{part}.py"
    found = [single] if part and single.exists() else sorted((PACKAGE / part).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_imports_point_down(part: str) -> None:
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in files(part)
        for name in imported(path)
        if name.split(".")[0] not in ALLOWED[part] | {part}
    }
    assert not wrong


def test_nothing_imports_the_front_door() -> None:
    # A study calls the Python interface, as a user does.
    front = {"api", "cli", "commands", "studies"}
    door = {"api.py", "cli.py", "__init__.py", "__main__.py"}
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in files()
        if str(path.relative_to(PACKAGE)) not in door and path.parent.name not in ("commands", "studies")
        for name in imported(path)
        if name.split(".")[0] in front
    }
    assert not wrong


def test_the_reader_of_imports_sees_every_form() -> None:
    assert imported(PACKAGE / "engine" / "hypergradient.py") == {
        "linalg.conjugate_gradients",
        "linalg.conjugate_residuals",
        "linalg.krylov",
        "engine.bilevel",
        "engine.curvature.base",
        "engine.running_cross",
        "engine.stability",
    }
    assert {"linalg.safe_lengths", "linalg.riesz"} <= imported(PACKAGE / "engine" / "outer" / "base.py")
    assert {"api", "run.solution"} <= imported(PACKAGE / "__init__.py")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ("torch", "skfem", "meshio", "matplotlib", "scipy")
    code = f"import sys, nhgd_pde.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"


def test_the_language_of_problem_files_needs_no_torch() -> None:
    modules = sorted(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files("problem_file"))
    code = (
        f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name.removesuffix('.__init__'))\n"
        "print([name for name in ('torch', 'skfem') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"
