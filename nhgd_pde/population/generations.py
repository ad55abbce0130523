"""The generations of a population: mutations of the better members, local search, and selection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .genes import Genes
from .members import Candidate, Searcher
from .options import Population, PopulationOptions
from .teacher import Lesson, Mutation, Scene, drawn_mutation, taught, untrained

# Two members nearer than this share of the ranges are in the same valley; the worse of them is replaced first.
_SAME = 1e-2
# Purposes of random numbers.
_STARTS, _TEACHER, _MUTATIONS = 0, 1, 2


def start_design(genes: Genes, options: PopulationOptions, number: int) -> Tensor:
    """The random design (p,) of a number; the first ones are the population's, and multi-start goes on with more."""
    return genes.drawn(options.generator(_STARTS, number))


def evolve(
    genes: Genes,
    search: Searcher,
    options: PopulationOptions,
    first: Tensor,
    keep: Callable[[Population], None] = lambda population: None,
    resumed: Population | None = None,
) -> Population:
    """Search with a population.

    Args:
        search: the local search of several designs.
        first: (p,) the design of the first member, the starting values of the problem; all others are random.
        keep: called with the population after every generation, the random starts included.
        resumed: such a population to go on from.

    Raises:
        SearchInterruptedError: the local search was asked to stop; the last population that was kept can be resumed.
    """
    population = resumed
    while population is None or population.generation < options.generations:
        if population is None:
            population = _born(genes, search, options, first)
        else:
            population = _next(population, genes, search, options)
        keep(population)
    return population


def _born(genes: Genes, search: Searcher, options: PopulationOptions, first: Tensor) -> Population:
    starts = [first, *(start_design(genes, options, k) for k in range(1, options.members))]
    members = tuple(search(starts, options.steps))
    teacher = untrained(options.reach, options.generator(_TEACHER))
    best = min(members, key=lambda each: each.value)
    return Population(0, members, best, teacher, sum(each.evaluations for each in members))


def _next(population: Population, genes: Genes, search: Searcher, options: PopulationOptions) -> Population:
    """The population after one generation."""
    generation = population.generation + 1
    ranked = ranking(population.members, genes)
    parents, students = ranked[: -options.children], ranked[-options.children :]
    partners = [[other for other in ranked if not near(genes, other, each)] for each in parents]
    counts = [len(each) for each in partners]
    mutations, starts = [], []
    for number, student in enumerate(students):
        generator = options.generator(_MUTATIONS, generation, number)
        scene = scene_of(student, parents, ranked, genes)
        drawn = drawn_mutation(population.teacher, scene, genes, counts, generator)
        v = parents[drawn.parent].v
        if drawn.mixed:
            other = int(torch.randint(counts[drawn.parent], (1,), generator=generator))
            v = genes.mixed(v, partners[drawn.parent][other].v, drawn.changed)
        mutations.append(drawn)
        starts.append(v)
    designs = [genes.mutated(v, each.shift) for v, each in zip(starts, mutations, strict=True)]
    # Members that have not converged go on where they are.
    going_on = [k for k, each in enumerate(parents) if not each.settled]
    found = search([*designs, *(parents[k].v for k in going_on)], options.steps)
    children = found[: len(designs)]
    lessons = _lessons(mutations, children, parents, genes)
    for k, moved in zip(going_on, found[len(designs) :], strict=True):
        parents[k] = moved if moved.value <= parents[k].value else replace(parents[k], settled=True)
    # A student that is better than a child of its generation stays in place of it.
    members = tuple(ranking((*parents, *students, *children), genes)[: options.members])
    return Population(
        generation,
        members,
        members[0],
        taught(population.teacher, lessons, options.rate),
        population.evaluations + sum(each.evaluations for each in found),
    )


def ranking(members: Sequence[Candidate], genes: Genes) -> list[Candidate]:
    """The members, the best first; those in the valley of a better one come after all others."""
    chosen: list[Candidate] = []
    double: list[Candidate] = []
    for each in sorted(members, key=lambda member: member.value):
        known = any(near(genes, each, other) for other in chosen)
        (double if known else chosen).append(each)
    return chosen + double


def near(genes: Genes, one: Candidate, other: Candidate) -> bool:
    """Whether two members are in the same valley."""
    return genes.distance(one.v, other.v) <= _SAME


def scene_of(student: Candidate, parents: list[Candidate], everyone: list[Candidate], genes: Genes) -> Scene:
    """What the teacher sees of a student."""
    finite = [each.value for each in everyone if math.isfinite(each.value)]
    spread = max(finite) - min(finite) if finite else 0.0
    own, slope = genes.of(student.v), slopes_of(genes, student.v, student.derivative)
    deviation = torch.stack([genes.of(each.v) for each in everyone]).std(0)
    rows, features = [], []
    for parent in parents:
        better = student.value - parent.value
        better = max(min(better / spread, 1.0), -1.0) if spread > 0.0 and not math.isnan(better) else 0.0
        theirs, along = genes.of(parent.v), slopes_of(genes, parent.v, parent.derivative)
        constant = torch.ones_like(own)
        columns = (theirs - own, slope, along, better * constant, deviation, theirs - 0.5, constant)
        rows.append(torch.stack(columns, dim=1))
        features.append([_standing(parent, finite, spread), float((theirs - own).abs().mean())])
    return Scene(torch.stack(rows), torch.tensor(features, dtype=torch.float64))


def _standing(member: Candidate, finite: list[float], spread: float) -> float:
    """1 for the best of all members, 0 for the worst."""
    return (max(finite) - member.value) / spread if spread > 0.0 and math.isfinite(member.value) else 0.0


def slopes_of(genes: Genes, v: Tensor, derivative: Tensor, shift: Tensor | None = None) -> Tensor:
    """The hypergradient (g,) by a shift of the genes of v, divided by its largest entry; zeros where it vanishes."""
    slopes = genes.derivative(v, derivative, shift)
    largest = float(slopes.abs().max())
    return slopes / largest if 0.0 < largest < math.inf else torch.zeros_like(slopes)


def _lessons(
    mutations: list[Mutation], children: list[Candidate], parents: list[Candidate], genes: Genes
) -> list[Lesson]:
    """What has become of the mutations: the advantage is by rank, so that units of the objective do not matter."""
    gains = [parents[each.parent].value - child.value for each, child in zip(mutations, children, strict=True)]
    order = sorted(range(len(gains)), key=lambda k: gains[k])
    lessons = []
    for k, (mutation, child) in enumerate(zip(mutations, children, strict=True)):
        place = 2.0 * order.index(k) / (len(gains) - 1) - 1.0 if len(gains) > 1 else 0.0
        advantage = 1.0 if gains[k] > 0.0 else min(place, 0.0)
        slopes = slopes_of(genes, parents[mutation.parent].v, child.start_derivative, mutation.shift)
        lessons.append(Lesson(mutation, advantage, slopes))
    return lessons
