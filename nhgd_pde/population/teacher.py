"""The teacher: a small network that maps the state of a population to mutations, and learns from what becomes of them.

After Tao et al. (2020), Learning to Mutate with Hypergradient Guided Population: a population of students is moved
by hypergradients, and a teacher with attention to the best students learns the schedule of mutations by which the worst
ones are replaced. The text of the paper was not at hand: features, distributions and the rule of learning are a
reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .genes import Genes

# What the network sees of a gene, and of a possible parent.
_FEATURES, _HIDDEN, _OUTPUTS, _ATTENTION = 7, 8, 3, 2
# The last parameter is the logit of the chance that a design is mixed.
_SIZES = (_FEATURES * _HIDDEN, _HIDDEN * _OUTPUTS, _OUTPUTS, _ATTENTION, 1)
# Largest share of the genes in the region that a mutation changes.
_LARGEST = 0.5
# Bounds of the standard deviation of a mutation, in ranges.
_SHORTEST, _LONGEST = 0.01, 1.0


@dataclass(frozen=True, eq=False)
class Scene:
    """What the teacher sees of a student and its possible parents; all numbers are without units.

    Attributes:
        genes: (parents, g, 7) differences of the genes, slopes of both, spread of the population, ...
        parents: (parents, 2) how much better each is, and how far away.
    """

    genes: Tensor
    parents: Tensor


@dataclass(frozen=True, eq=False)
class Mutation:
    """A mutation that the teacher has drawn.

    Attributes:
        scene: what it was drawn for.
        parent: index of the parent.
        centre: index of the gene in the middle of the region that changes.
        changed: (g,) which genes are in this region.
        mixed: the region is taken from another member; None where there is no member to mix with.
        noise: (g,) standard normal numbers.
        shift: (g,) the change of the genes where the region is not taken from another member; else zero.
    """

    scene: Scene
    parent: int
    centre: int
    changed: Tensor
    mixed: bool | None
    noise: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False)
class Lesson:
    """What has become of a mutation.

    Attributes:
        advantage: how much better than the other mutations of its generation it has become, between -1 and 1.
        slopes: (g,) the hypergradient by the genes at the mutated design, divided by its largest entry.
    """

    mutation: Mutation
    advantage: float
    slopes: Tensor


def untrained(reach: float, generator: torch.Generator) -> Tensor:
    """The parameters of a teacher that has learnt nothing: short random weights, and the given reach."""
    hidden = torch.randn(_SIZES[0], generator=generator, dtype=torch.float64) / math.sqrt(_FEATURES)
    rest = torch.tensor([0.0, math.log(reach), 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    return torch.cat([hidden, torch.zeros(_SIZES[1], dtype=torch.float64), rest])


def drawn_mutation(
    teacher: Tensor, scene: Scene, genes: Genes, partners: Sequence[int], generator: torch.Generator
) -> Mutation:
    """A mutation of one of the parents: which one, which region, and whether it is mixed or how far its genes move.

    Args:
        partners: for every parent the number of members that it can be mixed with.
    """
    parent = int(torch.multinomial(torch.softmax(_attention(teacher, scene), 0), 1, generator=generator))
    mean, log_reach, logit = mutation_policy(teacher, scene, parent)
    centre = int(torch.multinomial(torch.softmax(logit, 0), 1, generator=generator))
    size = int(torch.randint(1, max(round(_LARGEST * len(mean)), 1) + 1, (1,), generator=generator))
    changed = genes.region(centre, size, generator)
    mixed = bool(torch.rand(1, generator=generator, dtype=torch.float64) < torch.sigmoid(_split(teacher)[4]))
    noise = torch.randn(len(mean), generator=generator, dtype=torch.float64)
    mixed &= partners[parent] > 0
    shift = changed * (mean + log_reach.exp() * noise) * (not mixed)
    return Mutation(scene, parent, centre, changed, mixed if partners[parent] else None, noise, shift)


def taught(teacher: Tensor, lessons: list[Lesson], rate: float) -> Tensor:
    """The parameters after one step along the derivative of what the lessons say.

    The derivative has two parts. The hypergradient at the mutated design tells directly how the mean and the reach of
    the mutation should change: the shift is mean + reach * noise. The result of the local search has no derivative by
    the shift, since it jumps from valley to valley: there the logarithm of the probability of what was drawn is
    weighted by the advantage (the score function of Williams, 1992).
    """
    if rate == 0.0 or not lessons:
        return teacher
    parameters = teacher.clone().requires_grad_()
    with torch.enable_grad():
        loss = torch.stack([_loss(parameters, each) for each in lessons]).mean()
        (derivative,) = torch.autograd.grad(loss, parameters)
    length = float(derivative.norm())
    if not math.isfinite(length):
        return teacher
    return teacher - rate * derivative / max(length, 1.0)


def _loss(teacher: Tensor, lesson: Lesson) -> Tensor:
    drawn = lesson.mutation
    mean, log_reach, logit = mutation_policy(teacher, drawn.scene, drawn.parent)
    chances = torch.log_softmax(_attention(teacher, drawn.scene), 0)[drawn.parent]
    chances = chances + torch.log_softmax(logit, 0)[drawn.centre]
    if drawn.mixed is not None:
        choice = _split(teacher)[4]
        chances = chances + torch.nn.functional.logsigmoid(choice if drawn.mixed else -choice).sum()
    if drawn.mixed:
        return -lesson.advantage * chances
    path = (lesson.slopes * drawn.changed * (mean + log_reach.exp() * drawn.noise)).sum()
    standard = (drawn.shift - mean) / log_reach.exp()
    density = (drawn.changed * (-0.5 * standard.square() - log_reach)).sum()
    return path - lesson.advantage * (density + chances)


def _split(teacher: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    hidden, outer, outputs, attention, mixing = teacher.split(list(_SIZES))
    return hidden.reshape(_FEATURES, _HIDDEN), outer.reshape(_HIDDEN, _OUTPUTS), outputs, attention, mixing


def mutation_policy(teacher: Tensor, scene: Scene, parent: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and logarithm of the reach of a mutation, and the logit of the gene in its middle, (g,) each."""
    hidden, outer, outputs, *_ = _split(teacher)
    mean, log_reach, logit = (torch.tanh(scene.genes[parent] @ hidden) @ outer + outputs).unbind(1)
    return mean, log_reach.clamp(math.log(_SHORTEST), math.log(_LONGEST)), logit


def _attention(teacher: Tensor, scene: Scene) -> Tensor:
    """(parents,) the attention to each parent, before softmax."""
    return scene.parents @ _split(teacher)[3]
