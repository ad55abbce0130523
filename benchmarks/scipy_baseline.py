"""The solver a numerical analyst writes by hand for Poisson control, to compare nhgd-pde with.

Unit square, n x n cells cut into triangles, state and control continuous and piecewise linear (P1):

    minimise  J(v) = 1/2 ||u - d||^2 + alpha/2 ||v||^2   subject to   -Lap u = v,  u = 0 on the boundary

with d = sin(2 pi x) sin(2 pi y) interpolated at the nodes. scikit-fem assembles, SuperLU factorises the
stiffness matrix once, and conjugate gradients in the mass inner product solve the reduced optimality system.
Nothing is imported from nhgd_pde.

    python benchmarks/scipy_baseline.py [N ...] [--repeats R]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from dataclasses import dataclass

import numpy as np
import skfem
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import SuperLU, splu
from skfem.models.poisson import laplace, mass

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class BaselineResult:
    """The result and the cost of one solve. Times are wall seconds.

    Attributes:
        n: number of cells along a side.
        objective, objective_initial: the objective at the solution and at v = 0.
        gradient_norm, gradient_norm_initial: norms of the gradient there, in the mass norm.
        iterations: iterations of conjugate gradients.
        stiffness_solves: solves with the factors of the stiffness matrix.
        converged: the norm of the gradient reached the tolerance.
        seconds_assembly: seconds for mesh and matrices.
        seconds_factorisation, seconds_optimisation: seconds for the factors and for the iterations.
        factor_nonzeros: nonzeros of L and U together.
        peak_memory_bytes: the peak of the whole process, which includes earlier solves.
        control, state: (nodes,) values at the nodes.
        nodes: (2, nodes) coordinates.
    """

    n: int
    objective: float
    objective_initial: float
    gradient_norm: float
    gradient_norm_initial: float
    iterations: int
    stiffness_solves: int
    converged: bool
    seconds_assembly: float
    seconds_factorisation: float
    seconds_optimisation: float
    factor_nonzeros: int
    peak_memory_bytes: int
    control: Vector
    state: Vector
    nodes: Vector

    @property
    def seconds(self) -> float:
        return self.seconds_assembly + self.seconds_factorisation + self.seconds_optimisation


@dataclass(frozen=True)
class _Optimum:
    control: Vector
    state: Vector
    iterations: int
    stiffness_solves: int
    gradient_norm: float
    gradient_norm_initial: float
    converged: bool


def solve(n: int, rtol: float = 1e-8, alpha: float = 1e-6, max_iterations: int = 1000) -> BaselineResult:
    """Solves on n x n cells until the mass norm of the gradient is at most rtol times its value at v = 0.

    Raises ValueError for n < 2 (no free node), or rtol or alpha that are not positive.
    """
    if n < 2 or rtol <= 0 or alpha <= 0:
        raise ValueError(f"expected n >= 2, rtol > 0, alpha > 0; found n={n}, rtol={rtol}, alpha={alpha}")

    start = time.perf_counter()
    ticks = np.linspace(0.0, 1.0, n + 1)
    basis = skfem.Basis(skfem.MeshTri.init_tensor(ticks, ticks), skfem.ElementTriP1())
    # The degrees of freedom of P1 are the values at the vertices, in their order.
    nodes = basis.mesh.p
    # A search for the boundary in the mesh would take a third of the time of assembly.
    free = np.flatnonzero(((nodes > 0.0) & (nodes < 1.0)).all(axis=0))
    stiffness = laplace.assemble(basis)[free][:, free].tocsc()
    mass_all = mass.assemble(basis)
    mass_rows = mass_all[free]
    mass_free = mass_rows[:, free]
    target = np.sin(2 * np.pi * nodes[0]) * np.sin(2 * np.pi * nodes[1])
    load = mass_rows @ target
    assembled = time.perf_counter()

    factor = splu(stiffness, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    factorised = time.perf_counter()

    optimum = _conjugate_gradients(factor, mass_free, load, alpha, rtol, max_iterations)
    control, state = np.zeros_like(target), np.zeros_like(target)
    control[free], state[free] = optimum.control, optimum.state
    misfit = state - target
    objective = 0.5 * misfit @ (mass_all @ misfit) + 0.5 * alpha * control @ (mass_all @ control)
    finished = time.perf_counter()

    return BaselineResult(
        n=n,
        objective=float(objective),
        objective_initial=float(0.5 * target @ (mass_all @ target)),
        gradient_norm=optimum.gradient_norm,
        gradient_norm_initial=optimum.gradient_norm_initial,
        iterations=optimum.iterations,
        stiffness_solves=optimum.stiffness_solves,
        converged=optimum.converged,
        seconds_assembly=assembled - start,
        seconds_factorisation=factorised - assembled,
        seconds_optimisation=finished - factorised,
        factor_nonzeros=int(factor.nnz),
        peak_memory_bytes=_peak_memory_bytes(),
        control=control,
        state=state,
        nodes=nodes,
    )


def _conjugate_gradients(
    factor: SuperLU, mass_free: csr_matrix, load: Vector, alpha: float, rtol: float, max_iterations: int
) -> _Optimum:
    """Conjugate gradients on (alpha I + A^-1 M A^-1 M) v = A^-1 M d in the inner product of M.

    A and M act between free nodes. This is exact: the gradient alpha v + p vanishes on the boundary if v
    does, so that all iterates from v = 0 are zero there. An iteration costs two solves and two products
    with M; the product of the search direction and the state follow by recurrences.
    """
    residual = factor.solve(load)  # This is minus the gradient at v = 0.
    mass_residual = mass_free @ residual
    square = float(residual @ mass_residual)
    square_initial = square
    square_wanted = rtol**2 * square_initial

    control, state = np.zeros_like(residual), np.zeros_like(residual)
    direction, mass_direction = residual.copy(), mass_residual.copy()
    iterations = 0
    while square > square_wanted and iterations < max_iterations:
        state_change = factor.solve(mass_direction)
        product = factor.solve(mass_free @ state_change)
        product += alpha * direction
        step = square / float(mass_direction @ product)
        control += step * direction
        state += step * state_change
        residual -= step * product
        mass_residual = mass_free @ residual
        square, square_before = float(residual @ mass_residual), square
        ratio = square / square_before
        direction = residual + ratio * direction
        mass_direction = mass_residual + ratio * mass_direction
        iterations += 1

    return _Optimum(
        control=control,
        state=state,
        iterations=iterations,
        stiffness_solves=1 + 2 * iterations,
        gradient_norm=square**0.5,
        gradient_norm_initial=square_initial**0.5,
        converged=square <= square_wanted,
    )


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    parser = argparse.ArgumentParser(description="Poisson control by one factorisation and reduced CG")
    parser.add_argument("n", nargs="*", type=int, default=[64, 128, 256], help="cells a side")
    parser.add_argument("--repeats", type=int, default=3, help="solves of each size; times are medians")
    options = parser.parse_args()

    print("Wall seconds, medians of", options.repeats)
    print("    n  control  iterations                J  assembly  factorisation  optimisation   total  peak MB")
    for n in options.n:
        results = [solve(n) for _ in range(options.repeats)]
        last = results[-1]
        assembly, factorisation, optimisation, total = (
            statistics.median(getattr(result, phase) for result in results)
            for phase in ("seconds_assembly", "seconds_factorisation", "seconds_optimisation", "seconds")
        )
        print(
            f"{n:5d}  {last.control.size:7d}  {last.iterations:10d}  {last.objective:.9e}  {assembly:8.3f}"
            f"  {factorisation:13.3f}  {optimisation:12.3f}  {total:6.3f}"
            f"  {last.peak_memory_bytes / 1e6:7.0f}" + ("" if last.converged else "  not converged")
        )


if __name__ == "__main__":
    main()
