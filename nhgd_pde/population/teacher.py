"""The teacher: a small network that maps the state of a population to mutations, and learns from what becomes of them.

After Tao et al. (2020), Learning to Mutate with Hypergradient Guided Population: a population of students is moved
by hypergradients, and a teacher with attention to the best students learns the schedule of mutations by which the worst
ones are replaced. The text of the paper was not at hand: features, distributions and the rule of learning are a
reconstruction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# What the network sees of a gene, and of a possible parent.
_FEATURES, _HIDDEN, _OUTPUTS, _ATTENTION = 7, 8, 3, 2
_SIZES = (_FEATURES * _HIDDEN, _HIDDEN * _OUTPUTS, _OUTPUTS, _ATTENTION)
# Expected number of genes that a mutation changes at the beginning.
_CHANGED = 1.5
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
        changed: (g,) which genes.
        noise: (g,) standard normal numbers.
        shift: (g,) the change of the genes.
    """

    scene: Scene
    parent: int
    changed: Tensor
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


def untrained(genes: int, reach: float, generator: torch.Generator) -> Tensor:
    """The parameters of a teacher that has learnt nothing: short random weights, and the given reach."""
    hidden = torch.randn(_SIZES[0], generator=generator, dtype=torch.float64) / math.sqrt(_FEATURES)
    share = min(_CHANGED / genes, 0.5)
    outputs = torch.tensor([0.0, math.log(reach), math.log(share / (1.0 - share))], dtype=torch.float64)
    return torch.cat(
        [hidden, torch.zeros(_SIZES[1], dtype=torch.float64), outputs, torch.tensor([1.0, 0.0], dtype=torch.float64)]
    )


def drawn_mutation(teacher: Tensor, scene: Scene, generator: torch.Generator) -> Mutation:
    """A mutation of one of the parents: which parent, which genes, and how far each."""
    parent = int(torch.multinomial(torch.softmax(_attention(teacher, scene), 0), 1, generator=generator))
    mean, log_reach, logit = _policy(teacher, scene, parent)
    uniform = torch.rand(len(mean), generator=generator, dtype=torch.float64)
    chances = torch.sigmoid(logit)
    changed = uniform < chances
    if not bool(changed.any()):
        # A mutation that changes nothing would search the same valley again.
        changed[(uniform / chances).argmin()] = True
    noise = torch.randn(len(mean), generator=generator, dtype=torch.float64)
    return Mutation(scene, parent, changed, noise, changed * (mean + log_reach.exp() * noise))


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
    mean, log_reach, logit = _policy(teacher, drawn.scene, drawn.parent)
    path = (lesson.slopes * drawn.changed * (mean + log_reach.exp() * drawn.noise)).sum()
    standard = (drawn.shift - mean) / log_reach.exp()
    density = (drawn.changed * (-0.5 * standard.square() - log_reach)).sum()
    choice = torch.where(drawn.changed, logit, -logit)
    chances = torch.nn.functional.logsigmoid(choice).sum()
    attention = torch.log_softmax(_attention(teacher, drawn.scene), 0)[drawn.parent]
    return path - lesson.advantage * (density + chances + attention)


def _split(teacher: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hidden, outer, outputs, attention = teacher.split(list(_SIZES))
    return hidden.reshape(_FEATURES, _HIDDEN), outer.reshape(_HIDDEN, _OUTPUTS), outputs, attention


def _policy(teacher: Tensor, scene: Scene, parent: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and logarithm of the reach of a mutation, and the logit of its chance, (g,) each."""
    hidden, outer, outputs, _ = _split(teacher)
    mean, log_reach, logit = (torch.tanh(scene.genes[parent] @ hidden) @ outer + outputs).unbind(1)
    return mean, log_reach.clamp(math.log(_SHORTEST), math.log(_LONGEST)), logit


def _attention(teacher: Tensor, scene: Scene) -> Tensor:
    """(parents,) the attention to each parent, before softmax."""
    return scene.parents @ _split(teacher)[3]
