"""Scenarios on a coarser mesh as control variates: transfers, values and their derivatives, errors, the optimum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import skfem
import torch
from scenario_problems import natural, restored
from torch import Tensor

import nhgd_pde as nhgd
from nhgd_pde.engine.loop import Stopping
from nhgd_pde.engine.minimise import minimise
from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.outer.newton_cg import NewtonCG
from nhgd_pde.engine.outer.reduced_objective import Evaluation
from nhgd_pde.engine.scenarios.growth import GrowthOptions
from nhgd_pde.engine.scenarios.known_solutions import KnownSolutions
from nhgd_pde.engine.scenarios.scenario_nhgd import ScenarioNHGD
from nhgd_pde.engine.scenarios.scenario_state import MeshLevelState, ScenarioState
from nhgd_pde.fem.interpolation import locate
from nhgd_pde.objective.risk import CVaR, RiskMeasure
from nhgd_pde.problem_file.errors import ProblemError
from nhgd_pde.scenario_problem import ScenarioProblem

FINE = Accuracy(1e-11, 1e-11)


def problem_of(**more: object) -> ScenarioProblem:
    found = nhgd.load(
        {
            "name": "levels",
            "mesh": {"kind": "rectangle", "cells": [16, 16]},
            "parameters": {"k": {"field": {"covariance": "matern", "length": 0.4, "std": 0.5, "modes": 4}}},
            "pde": {"kind": "poisson", "conductivity": "exp(k)", "boundary": {"all": {"dirichlet": 0}}},
            "control": {"kind": "source"},
            "objective": [
                {"kind": "tracking", "target": "sin(pi*x)*sin(pi*y)*(1+x)"},
                {"kind": "regularisation", "norm": "l2", "weight": 1e-4},
            ],
            "scenarios": {"count": 64, "levels": 2},
            **more,
        }
    ).stages[-1]
    assert isinstance(found, ScenarioProblem)
    return found


@pytest.fixture(scope="module")
def problem() -> ScenarioProblem:
    return problem_of()


def state_of(oracle: ScenarioNHGD, problem: ScenarioProblem, fine: int, coarse: int | None) -> ScenarioState:
    """The state with numbers of scenarios on each mesh, none of which is evaluated yet."""

    def level(of: ScenarioProblem, active: int) -> MeshLevelState:
        u, v = of.nominal.start()
        return MeshLevelState(oracle.base.init(of.nominal, u, v), KnownSolutions(u[:0], u[:0]), active)

    below = None
    if coarse is not None:
        assert problem.coarse is not None
        below = level(problem.coarse.problem, coarse)
    return ScenarioState(level(problem, fine), below)


def evaluated(problem: ScenarioProblem, v: Tensor, fine: int, coarse: int | None):
    return first_evaluation(problem, v, fine, coarse)[0]


def first_evaluation(
    problem: ScenarioProblem, v: Tensor, fine: int, coarse: int | None, shift: Tensor | None = None
) -> tuple[Evaluation, ScenarioState]:
    # Tolerances do not depend on the sampling error.
    oracle = ScenarioNHGD(natural(), GrowthOptions(roughest=FINE.state))
    return oracle.evaluate(problem, v, replace(state_of(oracle, problem, fine, coarse), shift=shift), FINE)


def point(problem: ScenarioProblem) -> Tensor:
    nodes = problem.nominal.control.parts[0].nodes
    return torch.from_numpy(30.0 * np.sin(np.pi * nodes[0]) * np.sin(np.pi * nodes[1]) * (1.0 + nodes[0]))


@pytest.mark.parametrize("mesh", [skfem.MeshTri, skfem.MeshTet, skfem.MeshLine], ids=lambda mesh: mesh.__name__)
def test_every_point_is_found_in_a_cell_that_contains_it(mesh: type[skfem.Mesh]) -> None:
    made = mesh().refined(3)
    points = np.random.default_rng(0).random((made.dim(), 500))
    cells, local, inside = locate(made.p, made.t, points)
    assert inside.all()
    corners = made.p[:, made.t[:, cells]]
    shares = np.concatenate([1.0 - local.sum(axis=0)[None], local])
    assert (shares > -1e-8).all()
    np.testing.assert_allclose((corners * shares).sum(axis=1), points, atol=1e-12)


def test_a_point_outside_is_in_no_cell() -> None:
    mesh = skfem.MeshTri().refined(2)
    cells, local, inside = locate(mesh.p, mesh.t, np.array([[0.5, 1.1], [0.5, 0.5]]))
    assert inside.tolist() == [True, False]
    # The nearest cell is at the side that the point is beyond.
    assert mesh.p[0, mesh.t[:, cells[1]]].max() == 1.0 and min(*local[:, 1], 1.0 - local[:, 1].sum()) < 0.0


@pytest.mark.parametrize("space", ["P1", "P0"])
def test_the_restriction_is_a_left_inverse_with_a_transpose(space: str) -> None:
    way = problem_of(control={"kind": "source", "space": space}).coarse
    assert way is not None
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(way.problem.outer_size, generator=generator, dtype=torch.float64)
    prolonged = way.prolongation.mv(coarse[None])[0]
    torch.testing.assert_close(way.restrict(prolonged), coarse, rtol=0.0, atol=1e-11)
    v = torch.randn(len(prolonged), generator=generator, dtype=torch.float64)
    covector = torch.randn(len(coarse), generator=generator, dtype=torch.float64)
    left, right = float(way.restrict(v) @ covector), float(v @ way.restrict_transposed(covector[None])[0])
    assert left == pytest.approx(right, rel=1e-11)


def test_states_are_prolonged_as_functions(problem: ScenarioProblem) -> None:
    way = problem.coarse
    assert way is not None
    total = []
    for part in (way.problem.nominal, problem.nominal):
        nodes = part.equation.free
        assert len(nodes) == part.inner_shape[1]
        total.append(len(nodes))
    # The coarse hat function in the middle is a fine function with seven nodes around it and half the value there.
    image = way.prolong(torch.eye(total[0], dtype=torch.float64))
    assert image.shape == (total[0], total[1])
    assert sorted(image[total[0] // 2][image[total[0] // 2] > 1e-12].tolist()) == pytest.approx([0.5] * 6 + [1.0])


@pytest.mark.parametrize("risk", [None, CVaR(0.7, smoothing=3e-3)], ids=["mean", "cvar"])
@pytest.mark.parametrize("fine", [0, 6])
def test_the_derivative_over_two_meshes_is_that_of_the_value(
    problem: ScenarioProblem, risk: RiskMeasure | None, fine: int
) -> None:
    risky = problem if risk is None else replace(problem, risk=risk, coarsened=problem.coarsened)
    v = point(problem)
    direction = torch.cos(torch.arange(len(v), dtype=torch.float64))
    first, state = first_evaluation(risky, v, fine, 24)
    # The linear term on the coarser mesh stays the same during a run.
    at = [first, *(first_evaluation(risky, v + t * direction, fine, 24, state.shift)[0] for t in (0.4, 0.2))]
    slope = float(at[0].derivative @ direction)
    remainders = [abs(each.value - at[0].value - t * slope) for each, t in zip(at[1:], (0.4, 0.2), strict=True)]
    assert remainders[0] / remainders[1] == pytest.approx(4.0, rel=0.05)


def test_the_nominal_adjoint_equation_has_the_same_right_hand_side_on_both_meshes(problem: ScenarioProblem) -> None:
    way, v = problem.coarse, point(problem)
    assert way is not None
    _, state = first_evaluation(problem, v, 0, 24)
    assert state.shift is not None and state.coarse is not None
    shifted = way.shifted(state.shift)
    assert way.shifted(state.shift.clone()) is shifted
    below = shifted.problem.nominal.scenario_derivatives(state.coarse.nominal.u, way.restrict(v))[0]
    above = problem.nominal.scenario_derivatives(state.nominal.u, v)[0]
    torch.testing.assert_close(below, way.states.rmv(above), rtol=1e-9, atol=1e-12 * float(above.abs().max()))


@pytest.mark.parametrize("k", [0, 5])
def test_a_shifted_scenario_has_a_linear_term_more(problem: ScenarioProblem, k: int) -> None:
    assert problem.coarse is not None
    plain = problem.coarse.problem
    covector = torch.randn(1, plain.inner_shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [of.part(torch.tensor([k])) for of in (plain, plain.shifted(covector))]
    v = problem.coarse.restrict(point(problem))
    u = torch.rand(1, plain.inner_shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    before, after = (float(part.scenario_values(u, v)) for part in parts)
    assert after - before == pytest.approx(float((u * covector).sum()), rel=1e-9)
    of_state = [part.scenario_derivatives(u, v)[0] for part in parts]
    torch.testing.assert_close(of_state[1] - of_state[0], covector, rtol=0.0, atol=1e-12)


def test_scenarios_on_the_coarser_mesh_come_first(problem: ScenarioProblem) -> None:
    """Their part of the error is small before a scenario is used on the mesh of the problem."""
    seen = []
    minimise(
        problem,
        ScenarioNHGD(natural()),
        NewtonCG(memory=10),
        Stopping(rtol=1e-6),
        callback=lambda it: seen.append((it.evaluation.scenarios, it.evaluation.coarse_scenarios)),
    )
    first = next(k for k, (fine, _) in enumerate(seen) if fine)
    assert max(coarse for _, coarse in seen[:first]) == 64, seen


def test_with_all_scenarios_on_the_fine_mesh_the_coarse_mesh_has_no_effect(problem: ScenarioProblem) -> None:
    v = point(problem)
    with_coarse, without = evaluated(problem, v, 64, 64), evaluated(problem, v, 64, None)
    assert with_coarse.sampling_error < 1e-14
    difference = with_coarse.derivative - without.derivative
    assert float(difference.norm()) < 1e-9 * float(without.derivative.norm())
    assert with_coarse.value == pytest.approx(without.value, rel=1e-10)


@pytest.mark.parametrize(("fine", "gain"), [(8, 7.0), (16, 5.0), (32, 7.0)])
def test_the_coarse_mesh_removes_most_of_the_sampling_error(problem: ScenarioProblem, fine: int, gain: float) -> None:
    v = point(problem)
    exact = evaluated(problem, v, 64, None)

    def error(evaluation) -> float:
        return problem.outer_metric.dual_norm((evaluation.derivative - exact.derivative)[None])

    with_coarse, without = evaluated(problem, v, fine, 64), evaluated(problem, v, fine, None)
    assert error(with_coarse) < error(without) / gain
    assert error(with_coarse) / 4.0 < with_coarse.sampling_error < 4.0 * error(with_coarse)


def test_the_remaining_sampling_error_falls_with_the_square_of_the_mesh_width() -> None:
    widths, errors = [], []
    for cells in (16, 24, 32, 40):
        problem = problem_of(mesh={"kind": "rectangle", "cells": [cells, cells]})
        v = point(problem)
        few, every = evaluated(problem, v, 8, 64), evaluated(problem, v, 64, None)
        widths.append(1.0 / cells)
        errors.append(problem.outer_metric.dual_norm((few.derivative - every.derivative)[None]))
    assert 1.7 < np.polyfit(np.log(widths), np.log(errors), 1)[0] < 2.3


def test_the_optimum_is_that_of_the_fine_problem(problem: ScenarioProblem) -> None:
    stopping, outer = Stopping(rtol=1e-9), NewtonCG(memory=10)
    seen = []
    found = minimise(problem, ScenarioNHGD(natural()), outer, stopping, callback=lambda it: seen.append(it.evaluation))
    alone = minimise(replace(problem, coarsened=None), ScenarioNHGD(natural()), outer, stopping)
    assert found.status == alone.status == "converged"
    assert seen[0].coarse_scenarios == 0 and any(each.coarse_scenarios == 64 for each in seen)
    assert seen[-1].coarse_scenarios == 0 and seen[-1].scenarios == 64
    assert found.last.evaluation.value == pytest.approx(alone.last.evaluation.value, rel=1e-10)


def test_a_restored_state_gives_the_same_numbers(problem: ScenarioProblem) -> None:
    oracle = ScenarioNHGD(natural())
    v = point(problem)
    _, state = oracle.evaluate(problem, v, state_of(oracle, problem, 8, 32), Accuracy(1e-3, 1e-3))
    again = restored(oracle, problem, state)
    assert again.coarse is not None and len(again.coarse.known.u) == 32 and len(again.known.u) == 8
    following = [oracle.evaluate(problem, 0.9 * v, each, Accuracy(1e-3, 1e-3))[0] for each in (state, again)]
    torch.testing.assert_close(following[0].derivative, following[1].derivative, rtol=1e-12, atol=1e-16)
    assert following[0].value == pytest.approx(following[1].value, rel=1e-12)
    assert following[0].sampling_error == pytest.approx(following[1].sampling_error, rel=1e-9)


def test_a_coarse_mesh_that_does_not_help_is_dropped(problem: ScenarioProblem) -> None:
    assert problem.coarse is not None
    # The scenarios on the coarse mesh are unrelated to those of the problem.
    shuffled = replace(problem.coarse.problem, z=-3.0 * problem.z[::-1])
    misled = replace(problem, coarsened=lambda: replace(problem.coarse, problem=shuffled))
    seen = []
    found = minimise(
        misled,
        ScenarioNHGD(natural()),
        NewtonCG(memory=10),
        Stopping(rtol=1e-9),
        callback=lambda it: seen.append(it.evaluation),
    )
    assert found.status == "converged", found.message
    alone = minimise(
        replace(problem, coarsened=None), ScenarioNHGD(natural()), NewtonCG(memory=10), Stopping(rtol=1e-9)
    )
    assert found.last.evaluation.value == pytest.approx(alone.last.evaluation.value, rel=1e-10)
    assert sum(each.scenarios > 0 and each.coarse_scenarios > 0 for each in seen) == 1


def test_a_gap_is_reached_with_fewer_solves_than_on_one_mesh(problem: ScenarioProblem) -> None:
    """The gap is one per cent of the optimal value over the whole sample."""
    best = minimise(problem, ScenarioNHGD(natural()), NewtonCG(memory=10), Stopping(rtol=1e-9)).last.evaluation.value

    def solves(of: ScenarioProblem) -> int:
        seen, before = [], of.counts.solves
        minimise(
            of,
            ScenarioNHGD(natural()),
            NewtonCG(memory=10),
            Stopping(rtol=1e-7),
            callback=lambda it: seen.append((of.counts.solves - before, it.evaluation.v)),
        )
        gaps = [evaluated(problem, v, 64, None).value - best for _, v in seen]
        return next(count for (count, _), gap in zip(seen, gaps, strict=True) if gap <= 1e-2 * abs(best))

    assert solves(problem) < 0.3 * solves(replace(problem, coarsened=None))


@pytest.mark.parametrize(
    ("more", "there"),
    [
        ({"scenarios": {"count": 8, "levels": 1}}, False),
        ({"scenarios": {"count": 8}}, False),
        ({"mesh": {"kind": "disk", "refine": 5}, "scenarios": {"count": 8}}, False),
        ({"mesh": {"kind": "l_shape", "refine": 3}}, True),
        ({"mesh": {"kind": "rectangle", "cells": [9, 16], "cell": "quadrilateral"}}, True),
        ({"control": {"kind": "source", "bounds": [0, 50]}}, True),
        ({"element": "P2"}, True),
        (
            {
                "control": {"kind": "neumann", "on": "top"},
                "pde": {"kind": "poisson", "conductivity": "exp(k)", "boundary": {"bottom": {"dirichlet": 0}}},
            },
            True,
        ),
    ],
)
def test_which_problems_have_a_coarser_mesh(more: dict, there: bool) -> None:
    found = problem_of(**more)
    assert (found.coarse is not None) == there
    if there:
        result = minimise(found, ScenarioNHGD(natural()), NewtonCG(memory=10), Stopping(rtol=1e-3))
        assert result.status == "converged", result.message


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"mesh": {"kind": "rectangle", "cells": [6, 6]}}, "found 2: there is no coarser mesh"),
        ({"mesh": {"kind": "disk", "refine": 3}}, "found 2: there is no coarser mesh"),
        ({"pde": {"kind": "heat", "conductivity": "exp(k)"}, "time": {"end": 1, "steps": 2}}, "found 2: an evolution"),
        ({"scenarios": {"levels": 2, "strategy": "saga"}}, "with strategy saga, found 2"),
        ({"scenarios": {"levels": 2, "sampling": "quadrature"}}, "with sampling quadrature, found 2"),
    ],
)
def test_two_meshes_are_refused_where_they_have_no_effect(more: dict, complaint: str) -> None:
    with pytest.raises(ProblemError, match=complaint):
        problem_of(**more)


def test_the_number_of_meshes_is_one_or_two() -> None:
    with pytest.raises(ProblemError, match=r"levels.*at least 1 and below 3.*found 3"):
        problem_of(scenarios={"levels": 3})
