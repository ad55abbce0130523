"""Estimates from a problem file whether the problem fits into memory, before anything large is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..linalg.memory import whole_bytes
from ..linalg.solvers.crossovers import CROSSOVER
from .catalogue import SEARCHES
from .control_spec import DensityControl
from .loading import ProblemFile
from .mesh_spec import DiskMesh, FileMesh, LShapeMesh, ObjectMesh
from .schema import ProblemSpec
from .sizes import (
    MeshSize,
    control_size,
    fields,
    mesh_size,
    real,
    recomputed_at_once,
    state_size,
    steps_at_once,
    two_to,
)

# Bytes that the loaded libraries take.
LIBRARIES = 3e8
# Bytes of tables, matrices and vectors for each unknown of the state, by the dimension. They are fitted to the peaks of
# runs with 4e3 to 1e6 unknowns in one and two dimensions, and 7e3 to 2.4e5 in three: those of scalar equations take
# half as many, and those of elements of higher degree and of vectors nearly as many.
STATE = {1: 4e3, 2: 4e3, 3: 1e4}
# The same bytes in an evolution, for each unknown at each time: where all steps share one matrix (True), and where each
# step has its own (False), so that several sets of factors are held. Fitted to 2e4 to 1.6e5 unknowns in two dimensions.
EVOLUTION = {True: 2.6e3, False: 1.2e4}
# Entries in a row of a matrix, relative to the number of functions of one element, by the dimension.
ROW = {1: 1.5, 2: 2.2, 3: 3.5}
# Bytes of a multigrid hierarchy relative to those of its matrix: by the dimension, for vectors, and in a space of
# higher degree, whose first coarser level is much smaller; and usual bytes of the inverse on the coarsest level.
_HIERARCHY, _OF_VECTORS, _OF_HIGHER_DEGREE, _COARSEST = {1: 2.0, 2: 2.0, 3: 1.4}, 2.3, 1.3, 8.0 * 100**2
# Bytes of Cholesky factors relative to those of both factors of SuperLU.
_CHOLESKY = 0.6
# Least number of quadrature points in a cell, by the dimension.
_POINTS = {1: 2.0, 2: 3.0, 3: 4.0}
# Bytes in memory for each byte of a text: of a file of sensors, and of a mesh file.
_OF_SENSORS, _OF_MESH_FILE = 20.0, 10.0
# Default of `scenarios.count`, and the largest number of pivots of a random field whose number of modes is not given.
_COUNT, _PIVOTS = 256.0, 1024.0
# Default of `inner.steps` with sampled tests.
_STEPS = 400.0


def factor_entries(unknowns: float, dim: int) -> float:
    """The number of entries in a minimum degree factorisation of a P1 Laplacian, fitted to uniform meshes.

    8 n^1.215 entries in two dimensions (n = 4e3 and 6.5e4), 4.6 n^1.5 in three (n = 7e3 and 1.6e4), 4 n in one.
    In regular meshes of simplices the couplings across right angles vanish; then there are half as many entries.
    """
    factor, power = {1: (4.0, 1.0), 2: (8.0, 1.215), 3: (4.6, 1.5)}[dim]
    return factor * _power(unknowns, power)


def prepared_bytes(solver: str, unknowns: float, row: float, dim: int, vector: bool, element: str) -> float:
    """Bytes of the factors or the hierarchy of a matrix that a solver keeps.

    Args:
        solver: its name, other than auto.
        unknowns: number of rows.
        row: number of entries in a row of the matrix.
        dim: dimension of space.
        vector: nodes have several unknowns.
        element: the element of the unknowns.
    """
    if solver in ("amg", "petsc"):
        growth = _OF_HIGHER_DEGREE if element == "P2" else _OF_VECTORS if vector else _HIERARCHY[dim]
        return _COARSEST + 12.0 * row * unknowns * growth
    return 12.0 * factor_entries(unknowns, dim) * (_CHOLESKY if solver == "cholmod" else 1.0)


def size_text(count: float) -> str:
    """Bytes for people: 12 kB, 3.4 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000.0:
            return f"{count:.0f} {unit}"
        count /= 1000.0
    for unit in ("GB", "TB", "PB"):
        if count < 1000.0:
            return f"{count:.1f} {unit}"
        count /= 1000.0
    return f"{count:.3g} EB"


def check_room(file: ProblemFile, read: MeshSize | None = None) -> None:
    """Refuse a problem that takes more memory than there is.

    Args:
        file: the problem file.
        read: the size of the mesh in a mesh file, before `mesh.refine`. Without it, only the bytes of a mesh file are
            counted.

    Raises:
        ProblemError: at the key that makes the problem so large, with the bytes it would take and those there are.
    """
    spec = file.spec
    if not isinstance(spec, ProblemSpec):
        return  # The data of a task are read before anything else can be counted.
    mesh = mesh_size(spec.mesh)
    if mesh is None and read is not None:
        mesh = read.refined(spec.mesh.refine)
    needs = list(_files(file))
    counts = ""
    if mesh is not None:
        plan = _Plan(spec, mesh)
        needs += plan.needs()
        counts = f": {plan}"
    total = LIBRARIES + sum(need.bytes for need in needs)
    there = whole_bytes() if spec.devices.memory == "auto" else float(spec.devices.memory)
    if total <= there:
        return
    key = max(needs, key=lambda need: need.bytes).key
    message = (
        f"expected a problem that fits into memory, found one that would take about {size_text(total)} "
        f"({_number(total)} bytes), where {size_text(there)} ({_number(there)} bytes) are available{counts}; "
        "`devices.memory` says how many bytes it may take where this is not right"
    )
    raise file.error(key, message)


@dataclass(frozen=True)
class _Need:
    """A number of bytes, and the key in the file that it depends on most."""

    key: str
    bytes: float


@dataclass(frozen=True)
class _Plan:
    """The numbers that the memory of a problem grows with.

    Attributes:
        spec: the problem.
        mesh: its mesh.
        steps: number of time steps; 1 in a steady problem.
        scenarios: number of scenarios; 1 without random inputs.
    """

    spec: ProblemSpec
    mesh: MeshSize
    steps: float = 0.0
    scenarios: float = 0.0

    def __post_init__(self) -> None:
        if not self.steps:
            object.__setattr__(self, "steps", 1.0 if self.spec.time is None else self._steps_in_memory())
        if not self.scenarios:
            object.__setattr__(self, "scenarios", self._scenarios())

    def _steps_in_memory(self) -> float:
        """The number of steps that are in memory at once: all of them, unless they are passed."""
        spec, steps = self.spec, real(self.spec.time.steps) if self.spec.time is not None else 1.0
        if not spec.passes_steps:
            return steps
        size = state_size(spec, self.mesh)
        if spec.method == "fds":
            return float(steps_at_once(steps, size, control_size(spec, self.mesh)))
        return float(recomputed_at_once(steps, size, self._kept_states))

    @property
    def _kept_states(self) -> float:
        """The number of states that `time.memory` has room for, or of all of them."""
        time = self.spec.time
        assert time is not None and time.memory is not None
        return min(time.memory / (8.0 * state_size(self.spec, self.mesh)), real(time.steps) + 1.0)

    def __str__(self) -> str:
        text = f"{_number(self.mesh.cells)} cells, {_number(state_size(self.spec, self.mesh))} state unknowns"
        if self.spec.time is not None:
            text += f", {_number(self.steps)} time steps"
        return text + (f", {_number(self.scenarios)} scenarios" if self.spec.parameters else "")

    def needs(self) -> Iterator[_Need]:
        """Everything that takes memory, each with the key that it depends on most."""
        one = MeshSize(self.mesh.dim, self.mesh.corners, 1.0, 1.0, 1.0)
        smaller = {
            _mesh_key(self.spec): replace(self, mesh=one),
            "time.steps": replace(self, steps=1.0),
            "scenarios.count": replace(self, scenarios=1.0),
        }
        yield _Need(min(smaller, key=lambda key: smaller[key].common), self.common)
        if self.spec.method == "fds":
            derivatives = 8.0 * (self.steps + 1.0) * state_size(self.spec, self.mesh)
            yield _Need("control", derivatives * control_size(self.spec, self.mesh))
        elif self.spec.passes_steps:
            yield _Need("time.memory", 8.0 * self._kept_states * state_size(self.spec, self.mesh))
        if self.spec.method in SEARCHES and self.spec.population.processes > 1:
            # Each process has a problem of its own.
            yield _Need("population.processes", real(self.spec.population.processes) * (LIBRARIES + self.common))
        yield from self._of_options()
        yield from self._of_inputs()

    @property
    def unknowns(self) -> float:
        """The number of state unknowns at all times together."""
        return state_size(self.spec, self.mesh) * self.steps

    @property
    def common(self) -> float:
        """Bytes of state, controls, factors and scenarios."""
        size, dim, spec = state_size(self.spec, self.mesh), self.mesh.dim, self.spec
        total = STATE[dim] * size + 40.0 * control_size(spec, self.mesh)
        shared = spec.time is None or spec.pde.steady_operator
        total += self._prepared * (1.0 if shared else self.steps)
        if spec.time is not None:
            total += EVOLUTION[shared] * self.unknowns
        # Every term has a matrix, or its values at the points.
        total += 8.0 * self._points * (len(spec.objective) + len(spec.constraints) + len(spec.pde.points))
        return total + (self._of_scenarios() if spec.parameters else 0.0)

    @property
    def _prepared(self) -> float:
        """Bytes of the factors or the hierarchy of one matrix; with auto of a matrix that is definite."""
        size, dim, kind = state_size(self.spec, self.mesh), self.mesh.dim, self.spec.solver.kind
        if kind == "auto":
            kind = "superlu" if size < CROSSOVER[dim] else "amg"
        components = fields(self.spec, dim)
        row = ROW[dim] * self.mesh.nodes_per_cell(self.spec.element) * components
        return prepared_bytes(kind, size, row, dim, components > 1, self.spec.element)

    @property
    def _points(self) -> float:
        return _POINTS[self.mesh.dim] * self.mesh.cells

    def _scenarios(self) -> float:
        given = self.spec.scenarios
        if given is None or not self.spec.parameters:
            return 1.0
        if given.sampling == "quadrature":
            # A rule with too many points is refused elsewhere, by the number of its points.
            return 1.0
        return _COUNT if given.count == "auto" else real(given.count)

    def _of_scenarios(self) -> float:
        """Bytes of states, adjoints, hypergradients, weights and matrices, as in `engine.scenarios.footprint`."""
        spec, given, n = self.spec, self.spec.scenarios, self.unknowns
        assert given is not None
        batch = 1.0 if given.batch == "auto" else real(given.batch)
        rows = 8.0 * (6.0 * n + 2.0 * control_size(spec, self.mesh))
        if spec.method == "nhgd" and given.strategy == "streaming":
            kept = 0.0
        elif spec.method == "nhgd" and given.strategy != "saga":
            kept = self.scenarios * (rows + 8.0 * self.scenarios)
        else:
            kept = self.scenarios * (16.0 * n if spec.method == "robbins_monro" else rows)
        entries = ROW[self.mesh.dim] * self.mesh.nodes_per_cell(spec.element) * state_size(spec, self.mesh)
        variables = 16.0 * self.scenarios * (len(spec.parameters) + sum(_modes(each) for each in _fields(spec)))
        return kept + variables + min(batch, self.scenarios) * 8.0 * (entries + 8.0 * self._points)

    def _of_options(self) -> Iterator[_Need]:
        """Batches, inverses and remembered steps whose number is in the file."""
        spec, n = self.spec, self.unknowns
        tests = spec.inner.tests
        if not isinstance(tests, str):
            yield _Need("inner.tests", 16.0 * real(tests) * n)
        if not isinstance(spec.hypergradient.cross, str):
            yield _Need("hypergradient.cross", 16.0 * real(spec.hypergradient.cross) * n)
        elif spec.hypergradient.cross == "running" and spec.inner.model == "residual":
            # The matrix of the running mean; a few steps with few tests take less.
            columns = _STEPS if spec.inner.steps == "auto" else real(spec.inner.steps)
            columns *= 1.0 if isinstance(tests, str) else real(tests)
            p = control_size(spec, self.mesh)
            yield _Need("hypergradient.cross", 8.0 * min(p * n, columns * (p + n)))
        if spec.curvature.kind == "block":
            yield _Need("curvature.block", 8.0 * min(real(spec.curvature.block), n) * n)
        if spec.curvature.kind == "low_rank":
            yield _Need("curvature.rank", 16.0 * min(real(spec.curvature.rank), n) * n)
        if spec.outer.memory != "auto":
            pairs = min(real(spec.outer.memory), real(spec.outer.iterations))
            yield _Need("outer.memory", 24.0 * pairs * control_size(spec, self.mesh))
        if spec.scenarios is not None and spec.scenarios.validation != "auto":
            width = 4.0 * len(spec.parameters) + 2.0
            yield _Need("scenarios.validation", 8.0 * width * real(spec.scenarios.validation))

    def _of_inputs(self) -> Iterator[_Need]:
        """Stages of continuations, random fields, and rules of quadrature."""
        spec = self.spec
        for key, control in spec.keyed_controls:
            if isinstance(control, DensityControl) and isinstance(control.penalty, tuple):
                yield _Need(f"{key}.penalty", 16.0 * len(control.penalty) * self._points)
        for name, given in spec.parameters.items():
            if given.field is not None:
                modes = min(_modes(given.field), self.mesh.vertices)
                pivots = min(max(_PIVOTS if given.field.modes is None else 2.0 * modes, modes), self.mesh.vertices)
                values = pivots * self.mesh.vertices + modes * self._points + pivots**2
                yield _Need(f"parameters.{name}.field.modes", 8.0 * values)
        if spec.scenarios is not None and spec.scenarios.rule == "tensor" and spec.scenarios.points is not None:
            yield _Need("scenarios.points", 64.0 * real(spec.scenarios.points))


def _fields(spec: ProblemSpec) -> list[object]:
    return [each.field for each in spec.parameters.values() if each.field is not None]


def _modes(field: object) -> float:
    modes = getattr(field, "modes", None)
    return 1.0 if modes is None else real(modes)


def _mesh_key(spec: ProblemSpec) -> str:
    """The key of the mesh that contributes most to its size."""
    mesh = spec.mesh
    if isinstance(mesh, DiskMesh | LShapeMesh):
        return "mesh.refine"
    if isinstance(mesh, FileMesh):
        return "mesh.refine" if mesh.refine else "mesh.file"
    if isinstance(mesh, ObjectMesh):
        return "mesh.refine" if mesh.refine else "mesh.mesh"
    return "mesh.refine" if two_to(mesh.refine) > max(real(count) for count in mesh.cells) else "mesh.cells"


def _files(file: ProblemFile) -> Iterator[_Need]:
    """The memory that files take while they are read, estimated from their lengths."""
    spec = file.spec
    if isinstance(spec.mesh, FileMesh):
        yield _Need("mesh.file", _OF_MESH_FILE * _length(file, spec.mesh.file))
    for number, term in enumerate(spec.objective):
        if term.file is not None:
            key, name = term.file
            yield _Need(f"objective.{number}.{key}", _OF_SENSORS * _length(file, name))


def _length(file: ProblemFile, name: str) -> float:
    path = file.resolve(name)
    try:
        return 0.0 if path is None else float(path.stat().st_size)
    except OSError:
        return 0.0


def _power(number: float, power: float) -> float:
    try:
        return float(number**power)
    except OverflowError:
        return float("inf")


def _number(count: float) -> str:
    return f"{count:,.0f}" if count < 1e18 else f"{count:.3g}"
