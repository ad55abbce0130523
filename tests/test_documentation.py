"""README.md and the pages in docs/: every block and command is run by a test, or is in a list that says why not."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem
from click.testing import CliRunner
from ruamel.yaml import YAML
from units import SMALL, content

import nhgd_pde as nhgd
from nhgd_pde.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

# Pages whose blocks of a language another test file runs: with the regular expressions of that file.
ELSEWHERE = {
    ("README.md", "python"): "test_runs.py",
    ("docs/accuracy.md", "python"): "test_mesh_error.py",
    ("docs/architecture.md", "mermaid"): "test_architecture.py",
    ("docs/architecture.md", "python"): "test_architecture.py",
    ("docs/adaptive_meshes.md", "python"): "test_adaptive_runs.py",
    ("docs/coming_from.md", "yaml"): "test_packaging.py",
    ("docs/extending.md", "python"): "test_extension.py",
    ("docs/extending.md", "yaml"): "test_extension.py",
    ("docs/own_data.md", "bash"): "test_tutorial_pages.py",
    ("docs/own_data.md", "python"): "test_tutorial_pages.py",
    ("docs/own_data.md", "yaml"): "test_tutorial_pages.py",
    ("docs/own_meshes.md", "python"): "test_mesh_objects.py",
    ("docs/paraview.md", "python"): "test_surfaces.py",
    ("docs/population.md", "python"): "test_population_runs.py",
    ("docs/posterior.md", "python"): "test_inference_files.py",
    ("docs/problem_file.md", "yaml"): "test_problem_file.py",
    ("docs/python.md", "python"): "test_answers.py",
    ("docs/python_gradients.md", "python"): "test_gradients_page.py",
    ("docs/sensor_placement.md", "python"): "test_placement_files.py",
    ("docs/studies.md", "python"): "test_studies.py",
    ("docs/studies.md", "yaml"): "test_studies.py",
    ("docs/tasks.md", "python"): "test_tasks.py",
    ("docs/time_control.md", "bash"): "test_tutorial_pages.py",
    ("docs/time_control.md", "python"): "test_tutorial_pages.py",
    ("docs/tutorial_uncertainty.md", "yaml"): "test_problem_file.py",
    ("docs/twelve_tasks.md", "python"): "test_twelve_tasks.py",
    ("docs/twelve_tasks.md", "sh"): "test_twelve_tasks.py",
}
# Blocks of yaml that tests of this file load.
HERE = {
    "README.md",
    "docs/adaptive_meshes.md",
    "docs/evolutions.md",
    "docs/forward_mode.md",
    "docs/neural_states.md",
    "docs/own_meshes.md",
    "docs/posterior.md",
    "docs/sensor_placement.md",
    "docs/uncertainty.md",
}
# Blocks without a language, which nothing runs.
SHOWN = {
    "docs/api.md": "calls with all their arguments, made from the code",
    "docs/own_meshes.md": "geometry for gmsh, which needs libraries of the system that the tests do not have",
    "docs/population.md": "the output of a command",
    "docs/posterior.md": "the output of a command",
    "docs/sensor_placement.md": "the output of a command",
    "docs/tutorial_uncertainty.md": "the output of a command",
}
# Beginnings of the lines that are commands, and the parts of commands that cannot run in a test.
PROGRAMS = re.compile(
    r"(\$ |nhgd-pde |make |git |cd |python3? |\. |pip |gmsh |torchrun |mpirun |apt-get |exec |\[ |#|--|\.venv/"
    r"|[A-Z_]+=\S+ )"
)
NOT_RUN = {
    "make ": "makes virtual environments; continuous integration runs `make test`",
    "git clone": "needs the network",
    "cd nhgd-pde": "a part of the installation",
    "venv": "makes a virtual environment, or runs the tools in it; continuous integration does",
    "pip install": "installs packages; tests/test_packaging.py builds the wheel",
    "gmsh ": "needs libraries of the system that the tests do not have",
    "apt-get": "changes the system",
    "torchrun": "several processes or hosts; tests/test_ranks.py starts ranks in this way",
    "--ranks": "several processes; tests/test_ranks.py starts them",
    "cuda": "needs GPUs; tests/test_roles.py runs the same roles on the CPU",
    "#": "a comment, or a setting of a batch system",
    "[ -e": "a part of the script of a batch system",
    "exec ": "a part of the script of a batch system",
    "python -m benchmarks.": "measures for minutes; a test below finds the file",
    "python benchmarks/": "measures for minutes; a test below finds the file",
    '--methods "nhgd,adjoint:outer.method=gradient': "options alone; tests/test_bench.py has such contenders",
}
# Settings that make runs short, beside those of tests/units.py, by the name of the file.
SHORT: dict[str, dict[str, Any]] = {
    "poisson_network": {"mesh.cells": 8},
    "digits_cleaning": {"task.training": 100, "task.validation": 50, "outer.iterations": 1},
    "digits_distillation": {"task.training": 100, "outer.iterations": 1},
    "mother": {"mesh.cells": [8, 8]},
    "plate": {"mesh.cells": [8, 8]},
    "robust": {"mesh.cells": [8, 8], "scenarios.count": 16, "scenarios.validation": 16},
    "robust_poisson": {**SMALL["robust_poisson"], "scenarios.count": 8},
    "poisson_refinement": {"mesh.cells": [8, 8]},
    "inversion_l_curve": {"mesh.cells": [8, 8]},
    "weight_sweep": {"mesh.cells": [4, 4]},
}
# Commands that are made shorter in another way; words that are added to them, and the exit code. A later option wins.
BENCH = ["--seeds", "1", "--budget-solves", "60", "--budget-seconds", "0.3"]
ADDED: dict[str, tuple[list[str], int]] = {
    "nhgd-pde solve problems/heat_sink.yaml --set mesh.cells=[120,120] --output outputs/sink": (
        ["--set", "outer.iterations=3"],
        1,
    ),
    "nhgd-pde posterior outputs/inversion_posterior --chain 2000": (["--chain", "20"], 0),
}


@dataclass(frozen=True)
class Block:
    """A block of a page: fenced, or of indented lines (`language` is "indented")."""

    page: str
    language: str
    text: str
    start: int

    def __str__(self) -> str:
        line = read(self.page).count("\n", 0, self.start) + 1
        return f"{self.page}:{line}"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    text = read(page)
    found = [
        Block(page, match[1] or "none", match[2], match.start())
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]
    outside = re.sub(r"^```.*?^```$", lambda match: re.sub(r"\S", ".", match[0]), text, flags=re.DOTALL | re.MULTILINE)
    indented = re.finditer(r"(?:(?<=\n\n)|\A)(?:    \S?.*\n)+", outside)
    found += [Block(page, "indented", text[each.start() : each.end()], each.start()) for each in indented]
    return sorted(found, key=lambda block: block.start)


def commands(block: Block) -> list[str]:
    """The commands in a block of indented lines: lines that begin with a program, with the lines that continue them."""
    lines = block.text.replace("\\\n", " ").splitlines()
    shown = any(line.strip().startswith("$ ") for line in lines)
    found = [line.strip() for line in lines if PROGRAMS.match(line.strip())]
    if shown:  # the other lines are output
        found = [line for line in found if line.startswith("$ ")]
    return [re.sub(r"\s+# .*", "", " ".join(line.removeprefix("$ ").split())) for line in found]


ALL = [block for page in PAGES for block in blocks(page)]
COMMANDS_OF = {
    page: [each for block in ALL if block.page == page and block.language == "indented" for each in commands(block)]
    for page in PAGES
}
RUN = {
    page: [each for each in found if not any(part in each for part in NOT_RUN)] for page, found in COMMANDS_OF.items()
}
WITH_RUNS = [page for page, found in RUN.items() if found]


def patterns(test: str) -> list[re.Pattern[str]]:
    """The regular expressions for blocks in a test file."""
    tree = ast.parse((ROOT / "tests" / test).read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [re.compile(text, re.DOTALL | re.MULTILINE) for text in texts if "```" in text and "(.*?)" in text]


def test_every_fenced_block_is_run_or_shown() -> None:
    """A block that another test file runs is found by a regular expression of that file, which names the page."""
    used: set[Any] = set()
    for block in ALL:
        key = (block.page, block.language)
        if block.language == "indented":
            continue
        if key in ELSEWHERE:
            used.add(key)
            source = (ROOT / "tests" / ELSEWHERE[key]).read_text(encoding="utf-8")
            assert Path(block.page).name in source and re.search(r"\b(exec|build|load|solve)\b", source), str(block)
            spans = [match.span() for each in patterns(ELSEWHERE[key]) for match in each.finditer(read(block.page))]
            assert any(start <= block.start < end for start, end in spans), f"{block}: no test finds this block"
        elif block.language == "yaml":
            used.add(block.page)
            assert block.page in HERE, f"{block}: no test loads this block"
        else:
            used.add(key)
            assert block.language == "none" and block.page in SHOWN, f"{block}: no test runs this block"
    listed = {key for key in ELSEWHERE if key[0] in PAGES} | HERE | {(page, "none") for page in SHOWN}
    assert used == listed, "the lists above have blocks that no page has"


def test_every_command_is_run_or_listed() -> None:
    found = [each for page in PAGES for each in COMMANDS_OF[page]]
    for part in NOT_RUN:
        assert any(part in command for command in found), f"no page has {part!r} any more"
    for page in PAGES:
        for command in RUN[page]:
            assert command.startswith("nhgd-pde "), f"{page}: {command}"
    for block in ALL:
        # A formula, or a part of a file, has no command in it.
        if block.language == "indented" and not commands(block):
            assert not re.search(r"nhgd-pde [a-z]|nhgd_pde [a-z]|\bpip\b|\bpython\b", block.text), str(block)


def test_named_benchmarks_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"python -m (benchmarks\.\w+)", read(page)):
            assert importlib.util.find_spec(name), f"{page}: {name}"
        for name in re.findall(r"python (benchmarks/\w+\.py)", read(page)):
            assert (ROOT / name).is_file(), f"{page}: {name}"


def test_every_option_that_a_page_names_exists() -> None:
    for page in PAGES:
        for name, rest in re.findall(r"(?:^ {0,4}(?:\$ )?|`)nhgd-pde ([a-z]+)([^`\n|]*)", read(page), re.MULTILINE):
            assert name in COMMANDS, f"{page}: nhgd-pde {name}"
            command = main.get_command(None, name)  # type: ignore[arg-type]
            options = {each for parameter in command.params for each in (*parameter.opts, *parameter.secondary_opts)}
            for option in re.findall(r"(?<![\w-])(--[a-z-]+)", rest):
                assert option in options, f"{page}: nhgd-pde {name} {option}"


def test_every_link_of_a_page_leads_to_a_file() -> None:
    for page in PAGES:
        for link, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)", read(page)):
            target = (ROOT / page).parent / link if link else ROOT / page
            assert target.exists(), f"{page}: {link}"
            if anchor and target.suffix == ".md":
                titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
                assert anchor[1:] in anchors, f"{page}: {link}{anchor}"


def loaded(text: str) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(text)


def yaml_of(page: str) -> list[str]:
    return [block.text for block in blocks(page) if block.language == "yaml"]


def test_the_file_of_the_readme_is_the_shipped_one() -> None:
    (text,) = yaml_of("README.md")
    assert loaded(text) == content(ROOT / "problems" / "poisson_control.yaml")


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("docs/adaptive_meshes.md", "l_shape_adaptive"),
        ("docs/forward_mode.md", "heat_windows_fds"),
        ("docs/neural_states.md", "poisson_network"),
        ("docs/posterior.md", "inversion_posterior"),
        ("docs/sensor_placement.md", "sensor_placement"),
        ("docs/uncertainty.md", "robust_poisson"),
    ],
)
def test_lines_of_a_shipped_file_are_those_of_the_page(page: str, name: str) -> None:
    (text,) = yaml_of(page)
    shipped = content(ROOT / "problems" / f"{name}.yaml")
    assert {key: shipped[key] for key in loaded(text)} == loaded(text)


def test_the_limit_of_the_memory_of_states_is_taken() -> None:
    (text,) = yaml_of("docs/evolutions.md")
    kept = {f"time.{key}": value for key, value in loaded(text)["time"].items()}
    problem = nhgd.load(ROOT / "problems" / "heat_control.yaml", {**kept, "mesh.cells": 8, "time.steps": 20})
    assert problem.file.spec.time.memory == 500e6


def plate_with_hole(folder: Path) -> None:
    """A mesh with the names of the plate of docs/own_meshes.md, whose hole has corners, as gmsh writes it."""
    mesh = skfem.MeshTri.init_tensor(np.linspace(0, 2, 21), np.linspace(0, 1, 11))
    middles = mesh.p[:, mesh.t].mean(1)
    mesh = mesh.remove_elements(np.flatnonzero(np.hypot(middles[0] - 1, middles[1] - 0.5) < 0.2))
    sides = {
        "left": lambda x: x[0] < 1e-9,
        "right": lambda x: x[0] > 2 - 1e-9,
        "hole": lambda x: np.hypot(x[0] - 1, x[1] - 0.5) < 0.4,
    }
    mesh = mesh.with_boundaries(sides).with_subdomains({"plate": lambda x: x[0] > -1})
    facets = np.concatenate([mesh.facets[:, mesh.boundaries[name]].T for name in sides])
    tags = np.repeat([1, 2, 3], [len(mesh.boundaries[name]) for name in sides])
    whole = meshio.Mesh(
        np.c_[mesh.p.T, np.zeros(mesh.p.shape[1])],
        [("line", facets), ("triangle", mesh.t.T)],
        cell_data={
            "gmsh:physical": [tags, np.full(mesh.t.shape[1], 4)],
            "gmsh:geometrical": [tags, np.full(mesh.t.shape[1], 4)],
        },
        field_data={**{name: np.array([tag, 1]) for tag, name in enumerate(sides, 1)}, "plate": np.array([4, 2])},
    )
    meshio.write(folder / "plate_with_hole.msh", whole, file_format="gmsh22", binary=True)


def test_a_mesh_of_fenics_with_its_facets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mesh = skfem.MeshTri().refined(3)
    left = mesh.facets[:, mesh.facets_satisfying(lambda x: x[0] < 1e-9)].T
    tags = np.where(mesh.p[0, mesh.t].mean(0) < 0.5, 1, 2)
    meshio.write("mesh.xdmf", meshio.Mesh(mesh.p.T, [("triangle", mesh.t.T)], cell_data={"tags": [tags]}))
    meshio.write(
        "facets.xdmf", meshio.Mesh(mesh.p.T, [("line", left)], cell_data={"tags": [np.ones(len(left), dtype=int)]})
    )
    keys = loaded(next(text for text in yaml_of("docs/own_meshes.md") if "xdmf" in text))
    pde = {"kind": "poisson", "conductivity": {"1": 10, "default": 1}, "boundary": {"1": {"dirichlet": 0}}}
    problem = nhgd.load({**content(ROOT / "problems" / "poisson_control.yaml"), **keys, "pde": pde})
    solution = nhgd.solve(problem)
    assert solution.status == "converged"
    y = np.linspace(0.1, 0.9, 5)
    values = [np.abs(solution.evaluate(np.c_[np.full(5, x), y])).max() for x in (0.0, 0.5, 1.0)]
    assert values[0] < 1e-12 < 1e-2 < min(values[1:])


def prepared(page: str, folder: Path) -> None:
    """The files that a page has told its reader to write."""
    texts = yaml_of(page)
    if page == "docs/tutorial_uncertainty.md":
        names = ["plate.yaml", "robust.yaml"]
    elif page == "docs/coming_from.md":
        names = ["mother.yaml"]
    elif page == "docs/own_meshes.md":
        plate_with_hole(folder)
        names, texts = ["plate_with_hole.yaml"], [text for text in texts if "name: plate_with_hole" in text]
    elif page == "docs/extending.md":
        found = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", read(page), re.DOTALL)
        names, texts = [name for name, _ in found], [text for _, text in found]
    else:
        return
    for name, text in zip(names, texts, strict=True):
        (folder / name).write_text(text, encoding="utf-8")


def shortened(command: str) -> tuple[list[str], int]:
    """The arguments of a command with settings that make it short, and its exit code."""
    words = shlex.split(command)[1:]
    words = ["problems/switched_heaters.yaml" if word == "FILE" else word for word in words]
    stem = Path(words[1]).stem
    added, code = ADDED.get(command, ([], 0))
    if words[0] not in ("export", "posterior"):
        settings = SHORT.get(stem, SMALL.get(stem, {}))
        added = [*added, *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))]
    if words[0] == "bench":
        words = [word for word in words if word != "--grid"]
        added = [*added, *BENCH]
    if words[0] == "study":
        added = [*added, "--processes", "1"]
    if words[0] == "solve":
        added = [*added, "--no-figure"]
    if "--method hpm" in command:
        added = [*added, "--set", "population.processes=1", "--overwrite"]
    return [*words, *added], code


def effective(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The words of a command without its settings and its folder, and the last value of each setting."""
    others, settings, left = [], dict[str, str](), iter(words)
    for word in left:
        if word == "--set":
            key, _, value = next(left).partition("=")
            settings[key] = value
        elif word == "--output":
            next(left)
        else:
            others.append(word)
    return others, settings


@pytest.mark.parametrize("page", WITH_RUNS)
def test_the_commands_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "problems").symlink_to(ROOT / "problems")
    monkeypatch.chdir(tmp_path)
    prepared(page, tmp_path)
    made: list[tuple[list[str], dict[str, str]]] = []
    for command in RUN[page]:
        words, code = shortened(command)
        # Commands that differ in the numbers that are made small here, and in the folder, are one command.
        made.append(effective(words))
        if made[-1] in made[:-1]:
            continue
        done = CliRunner().invoke(main, words)
        assert done.exit_code == code, f"{command}\n{shlex.join(words)}\n{done.output}\n{done.exception!r}"


def test_the_output_in_the_readme_is_that_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "problems").symlink_to(ROOT / "problems")
    monkeypatch.chdir(tmp_path)
    (block,) = [each for each in blocks("README.md") if "$ nhgd-pde solve" in each.text]
    done = CliRunner().invoke(main, shlex.split(commands(block)[0])[1:])
    assert done.exit_code == 0
    shown, found = block.text, done.output
    for pattern in (r"[\d,]+ state and [\d,]+ control unknowns", r"objective 7\.\d{6}", r"open figure\.png .*"):
        (here,), (there,) = re.findall(pattern, shown), re.findall(pattern, found)
        assert here == there
    for row in (r"^ *0 +\d\.\d{4}e-\d+", r"^ *1 +\d\.\d{4}e-\d+", r"^ *2 +\d\.\d{4}e-\d+"):
        assert (
            re.findall(row, shown.replace("\n    ", "\n"), re.M)[0].split() == re.findall(row, found, re.M)[0].split()
        )
    assert (tmp_path / "outputs" / "poisson_control" / "figure.png").stat().st_size > 10_000
