"""Population search: the same numbers for the same seed, also after an interruption, and never worse than a member."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.population import prepared
from nhgd_pde.population.generations import evolve
from nhgd_pde.population.genes import Genes, genes_of
from nhgd_pde.population.members import LocalSearch
from nhgd_pde.population.multistart import Starts, multistart
from nhgd_pde.population.options import Population, PopulationOptions
from nhgd_pde.population.pool import processes
from nhgd_pde.population.teacher import Lesson, Mutation, Scene, mutation_policy, taught, untrained

OPTIONS = PopulationOptions(members=4, generations=3, steps=8, seed=3)


def searched(
    keep: list[Population] | None = None, resumed: Population | None = None, generations: int = 3
) -> Population:
    genes, local = prepared({"mesh.cells": 10})
    options = replace(OPTIONS, generations=generations)
    start = torch.full((10,), 0.5, dtype=torch.float64)
    return evolve(genes, local, options, start, (keep if keep is not None else []).append, resumed=resumed)


def local_search() -> LocalSearch:
    return prepared({"mesh.cells": 10})[1]


def same(a: Population, b: Population) -> bool:
    pairs = zip(a.members, b.members, strict=True)
    equal = all(torch.equal(x.v, y.v) and x.value == y.value for x, y in pairs)
    return equal and torch.equal(a.teacher, b.teacher) and a.evaluations == b.evaluations


def test_a_seed_gives_the_same_numbers_and_a_resumed_search_those_of_an_uninterrupted_one() -> None:
    kept: list[Population] = []
    whole = searched(kept)
    assert [each.generation for each in kept] == [0, 1, 2, 3]
    assert same(whole, searched())
    assert same(whole, searched(resumed=kept[1]))
    assert not torch.equal(kept[0].teacher, whole.teacher), "the teacher learns"


def test_two_processes_give_the_numbers_of_one() -> None:
    genes, local = prepared({"mesh.cells": 10})
    start, options = (
        torch.full((10,), 0.5, dtype=torch.float64),
        PopulationOptions(members=3, generations=1, steps=8, seed=5),
    )
    with processes(local_search, 2) as search:
        shared = evolve(genes, search, options, start)
    assert same(shared, evolve(genes, local, options, start))


def test_the_best_is_never_worse_than_a_member_nor_than_an_earlier_best() -> None:
    kept: list[Population] = []
    searched(kept)
    for each in kept:
        assert each.best.value <= min(member.value for member in each.members)
    assert [each.best.value for each in kept] == sorted((each.best.value for each in kept), reverse=True)


def test_multistart_spends_at_least_the_evaluations_it_is_compared_with() -> None:
    genes, local = prepared({"mesh.cells": 10})
    start = torch.full((10,), 0.5, dtype=torch.float64)
    kept: list[Starts] = []
    found = multistart(genes, local, OPTIONS, start, 30, kept.append)
    assert found.evaluations >= 30 > kept[-2].evaluations and found.count == len(kept) > 1
    for again in (
        multistart(genes, local, OPTIONS, start, 30, resumed=kept[0]),
        multistart(genes, local, OPTIONS, start, 30, at_once=3),
    ):
        assert (again.count, again.evaluations, again.best.value) == (found.count, found.evaluations, found.best.value)


def test_genes_give_designs_between_the_bounds_and_the_derivative_along_them() -> None:
    lower, upper = torch.tensor([-1.0, 0.1]).double(), torch.tensor([2.0, 10.0]).double()
    genes = genes_of([None, None], (lower, upper))
    v = genes.drawn(torch.Generator().manual_seed(0))
    far = genes.mutated(v, torch.tensor([3.3, -2.2]).double())
    assert bool(((far >= lower) & (far <= upper)).all())
    # The second variable is positive, so that a mutation multiplies it: exp(log(100) / 4) times.
    assert float(genes.mutated(lower, torch.tensor([0.0, 0.25]).double())[1]) == pytest.approx(0.1 * 100.0**0.25)
    slope, h = torch.tensor([1.3, -0.4]).double(), 1e-6
    # The second shift leads beyond the bounds, where both genes are reflected.
    for shift in (torch.zeros(2).double(), torch.tensor([3.3, -2.2]).double()):
        for k in range(2):
            step = torch.zeros(2).double()
            step[k] = h
            difference = float(slope @ (genes.mutated(v, shift + step) - genes.mutated(v, shift - step))) / (2 * h)
            assert float(genes.derivative(v, slope, shift)[k]) == pytest.approx(difference, rel=1e-7)


def field_and_number() -> Genes:
    """The genes of a field at 100 points of the unit square, and of a number."""
    points = torch.cartesian_prod(torch.linspace(0, 1, 10), torch.linspace(0, 1, 10)).double()
    lower, upper = torch.full((101,), -1.0).double(), torch.full((101,), 3.0).double()
    return genes_of([points, None], (lower, upper))


def test_a_mutation_has_the_same_standard_deviation_at_every_point() -> None:
    """Independent shifts of deviation s move every value by s widths: the squares of its derivatives add up to one."""
    genes = field_and_number()
    middle, zero = torch.ones(101).double(), torch.zeros(genes.count).double()
    derivatives = torch.func.jacfwd(lambda shift: genes.mutated(middle, shift))(zero)
    assert torch.allclose(derivatives.square().sum(1), torch.full((101,), 16.0).double())


def test_a_mixed_design_is_one_of_both_away_from_the_edge_of_the_region() -> None:
    genes = field_and_number()
    one, other = (genes.drawn(torch.Generator().manual_seed(seed)) for seed in (1, 2))
    every = torch.ones(genes.count, dtype=torch.bool)
    assert torch.allclose(genes.mixed(one, other, every), other) and torch.allclose(
        genes.mixed(one, other, ~every), one
    )
    # The number is a gene of its own, the last one.
    chosen = torch.arange(genes.count) == genes.count - 1
    mixed = genes.mixed(one, other, chosen)
    assert torch.allclose(mixed[:-1], one[:-1]) and float(mixed[-1]) == pytest.approx(float(other[-1]))
    # Half of the genes: every value is between both, and most of them are one of both.
    region = genes.region(0, genes.count // 2, torch.Generator().manual_seed(0))
    share = (genes.mixed(one, other, region) - one) / (other - one)
    assert bool(((share > -1e-9) & (share < 1.0 + 1e-9)).all())
    assert float(((share < 0.1) | (share > 0.9)).double().mean()) > 0.5


def test_a_region_has_the_nearest_genes_of_the_control_first() -> None:
    genes = field_and_number()
    for size in (1, 5, genes.count - 1, genes.count):
        region = genes.region(3, size, torch.Generator().manual_seed(size))
        assert int(region.sum()) == size and bool(region[3])
        # The number is infinitely far away from the field.
        assert bool(region[-1]) == (size == genes.count)
        inside, outside = genes.apart[3][region], genes.apart[3][~region]
        assert size == genes.count or float(inside.max()) <= float(outside.min())


def test_points_that_are_all_genes_have_weights_of_one() -> None:
    """With more than 25 points the distance of a point to itself would not be zero by the fast formula."""
    points = torch.linspace(0, 1, 32)[:, None].double() ** 2
    genes = genes_of([points], (torch.zeros(32).double(), torch.ones(32).double()))
    assert genes.count == 32 and torch.equal(genes.weights.sort(0).values[-1], torch.ones(32).double())


def scene(genes: int) -> Scene:
    generator = torch.Generator().manual_seed(1)
    return Scene(*(torch.randn(*size, generator=generator).double() for size in ((2, genes, 7), (2, 2))))


def test_the_teacher_follows_the_hypergradient_at_the_mutated_design() -> None:
    """Where the objective grows with every gene, the mean of the next mutations is lower."""
    seen, every = scene(3), torch.ones(3, dtype=torch.bool)
    before = untrained(0.3, torch.Generator().manual_seed(0))
    drawn = Mutation(seen, 0, 1, every, None, torch.zeros(3).double(), torch.zeros(3).double())
    after = taught(before, [Lesson(drawn, 0.0, torch.ones(3).double())], rate=0.1)
    means = [mutation_policy(each, seen, 0)[0] for each in (before, after)]
    assert bool((means[1] < means[0]).all())


@pytest.mark.parametrize("mixed", [True, False])
def test_the_teacher_chooses_more_often_what_was_better(mixed: bool) -> None:
    """The chance of the parent, of the middle of the region and of mixing grows where the result was good."""
    seen, before = scene(3), untrained(0.3, torch.Generator().manual_seed(0))
    region, zero = torch.tensor([False, True, True]), torch.zeros(3).double()
    drawn = Mutation(seen, 1, 2, region, mixed, zero, zero)

    def chance(teacher: torch.Tensor) -> float:
        attention = torch.softmax(seen.parents @ teacher[-3:-1], 0)[1]
        middle = torch.softmax(mutation_policy(teacher, seen, 1)[2], 0)[2]
        mixing = torch.sigmoid(teacher[-1] if mixed else -teacher[-1])
        return float(attention * middle * mixing)

    good, bad = (taught(before, [Lesson(drawn, advantage, zero)], rate=0.01) for advantage in (1.0, -1.0))
    assert chance(bad) < chance(before) < chance(good)


def test_a_bound_that_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="finite bounds"):
        genes_of([None], (torch.tensor([0.0]).double(), torch.tensor([torch.inf]).double()))
