"""The memory for the scenarios of a finite sum; for a stream it does not depend on their number."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scenario_problems import natural, poisson_2d, scenarios_of, waves
from test_streaming import numbers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from nhgd_pde.engine.oracle import Accuracy
from nhgd_pde.engine.scenarios.growth import GrowthOptions
from nhgd_pde.engine.scenarios.saga import SAGA
from nhgd_pde.engine.scenarios.scenario_nhgd import ScenarioNHGD
from nhgd_pde.engine.scenarios.streaming import Streaming
from nhgd_pde.scenario_problem import ScenarioProblem

COUNTS = (32, 64, 96)
AT_ONCE = 8


class Allocations(TorchDispatchMode):
    """Counts the largest number of entries of tensors that exist at once, each storage once.

    Storages are found by weak references, so that views and operations in place add nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        given = {each.untyped_storage()._cdata for each in tree_flatten((args, kwargs))[0] if _is_tensor(each)}
        for each in tree_flatten(found)[0]:
            if _is_tensor(each):
                self._took(each, given)
        return found

    def _took(self, tensor: torch.Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in given or key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _is_tensor(each: object) -> bool:
    return isinstance(each, torch.Tensor) and each.layout == torch.strided


def sampled(count: int) -> ScenarioProblem:
    nominal = poisson_2d()
    return scenarios_of(nominal, waves(nominal, count, 0.5), at_once=AT_ONCE)


def peak(problem: ScenarioProblem, oracle: Any, evaluations: int) -> int:
    """The peak of evaluations in numbers, including what the first evaluation keeps."""
    v = torch.ones(problem.outer_size, dtype=torch.float64)
    gc.collect()
    with Allocations() as allocations:
        state = oracle.init(problem, *problem.start())
        for k in range(evaluations):
            _, state = oracle.evaluate(problem, (1.0 + 0.1 * k) * v, state, Accuracy(1e-6, 1e-6))
    return allocations.peak // 8


def a_scenario(make: Callable[[], Any], evaluations: Callable[[int], int]) -> float:
    """The numbers that one more scenario adds to the peak."""
    found = [peak(sampled(count), make(), evaluations(count)) for count in COUNTS]
    steps = np.diff(found) / np.diff(COUNTS)
    assert steps[0] == pytest.approx(steps[1], abs=2.0)
    return float(steps[1])


# There are also values, errors, weights and signs, besides fields.
SCALARS = 12


def test_the_counter_counts() -> None:
    with Allocations() as allocations:
        a = torch.zeros(1000, dtype=torch.float64)
        b = a + 1.0
        del b
        c = a.view(10, 100) * 2.0
        d = c.t()[:5]
    assert allocations.peak // 8 == 2000 and len(d) == 5


def test_a_finite_sum_takes_states_adjoints_and_rows_of_hypergradients() -> None:
    """A scenario takes 2 n + p numbers, 3 n if the control is as fine as the state, and 2 n of the last iterate."""
    problem = sampled(1)
    n, p = problem.inner_shape[1], problem.outer_size
    found = a_scenario(lambda: ScenarioNHGD(natural(), GrowthOptions(None)), lambda count: 3)
    assert 2 * n + p < found < (2 * n + p) + 2 * n + SCALARS


def test_the_state_of_a_finite_sum_has_states_and_adjoints() -> None:
    for count in COUNTS[:2]:
        problem = sampled(count)
        oracle, v = ScenarioNHGD(natural(), GrowthOptions(None)), problem.start()[1]
        state = oracle.init(problem, *problem.start())
        for k in range(2):
            _, state = oracle.evaluate(problem, v + 0.1 * k, state, Accuracy(1e-6, 1e-6))
        of_scenarios = numbers(oracle.save(state)["state"])
        assert 0 <= of_scenarios - 2 * count * problem.inner_shape[1] < 4 * problem.inner_shape[1]


def test_a_table_of_hypergradients_takes_all_the_memory() -> None:
    problem = sampled(1)
    table = 2 * problem.inner_shape[1] + problem.outer_size
    found = a_scenario(lambda: SAGA(natural(), AT_ONCE), lambda count: count // AT_ONCE + 3)
    assert table < found < table + SCALARS


def test_the_memory_of_a_stream_does_not_depend_on_the_number_of_scenarios() -> None:
    """Peaks differ by less than the states of one batch, whose rows end their iterations sooner or later."""
    problem = sampled(COUNTS[0])
    batch = AT_ONCE * problem.inner_shape[1]
    peaks = [peak(sampled(count), Streaming(natural(), AT_ONCE), 3) for count in COUNTS]
    peaks.append(peak(problem, Streaming(natural(), AT_ONCE), 12))
    assert max(peaks) - min(peaks) < batch
