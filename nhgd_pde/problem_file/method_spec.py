"""The sections of a problem file that do not depend on what is solved: method, devices, output.

Problems with an equation and tasks have them in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, create_model

from nhgd_pde.problem_file.catalogue import (
    CURVATURES,
    EVOLUTION_METHODS,
    METHODS,
    OUTER_METHODS,
    SCENARIO_METHODS,
    SEARCHES,
)
from nhgd_pde.problem_file.fields import AutoCount, AutoPositive, Flag, Number, Section
from nhgd_pde.problem_file.mesh_spec import Count, Natural

# The words of the catalogue, which type checkers do not see.
if TYPE_CHECKING:
    MethodName = str
    CurvatureName = str
    OuterName = str
else:
    MethodName = Literal["nhgd", "adjoint", *METHODS, *EVOLUTION_METHODS, *SCENARIO_METHODS, *SEARCHES]
    CurvatureName = Literal["auto", *CURVATURES]
    OuterName = Literal["auto", *OUTER_METHODS]


class InnerSpec(Section):
    """The statistical model of the state and how its parameters are found."""

    model: Literal["auto", "residual", "energy"] = Field(
        default="auto",
        description="Residual form, or energy form where the equation is self-adjoint; auto prefers energy.",
    )
    steps: AutoCount = Field(default="auto", description="Inner steps an outer iteration.")
    step: AutoPositive = Field(
        default="auto",
        description="Length of the inner steps of sgd and of the compared methods; auto takes it from the spectrum.",
    )
    tests: Annotated[int | Literal["auto", "all"], Number(whole=True, least=1, words=("auto", "all"))] = Field(
        default="auto", description="Random test functions a batch; all for their expectation."
    )
    noise: Annotated[float | Literal["matched"], Number(above=0, words=("matched",))] = Field(
        default=1.0,
        description="Standard deviation of the observation noise; matched follows the running RMS of <w, R>.",
    )
    optimiser: Literal["natural", "sgd"] = Field(
        default="natural",
        description="Natural gradient, or stochastic gradient in the inner product of `metric`.",
    )
    metric: Literal["riesz", "identity"] = Field(
        default="riesz", description="Of sgd: the inner product of the test space, or that of the coefficients."
    )
    tolerance: AutoPositive = Field(default="auto", description="Relative state residual at which the inner steps end.")


class _Curvature(Section):
    """The inverse of the empirical Fisher information matrix."""

    kind: CurvatureName = Field(
        default="auto",
        description="Full matrix by low-rank updates, its diagonal blocks, sparse factors of the expectation, a "
        "structured prior with corrections of low rank, or Kronecker factors of layers; auto goes by structure, size "
        "and memory.",
    )
    prior: Literal["riesz", "identity"] = Field(
        default="riesz", description="Start from the inverse Riesz map, or from a multiple of the identity."
    )
    scores: Literal["model", "observed"] = Field(
        default="model",
        description="Scores with the noise integrated out, or the sampled gradients.",
    )
    prior_weight: AutoPositive = Field(default="auto", description="Number of samples the prior is worth.")
    forgetting: Annotated[float | Literal["auto"] | None, Number(above=0, below=1, null=True, words=("auto",))] = Field(
        default="auto",
        description="Constant weight of the newest batch; null for the running mean; auto for a running mean that "
        "fades once scores show that the Fisher information has changed.",
    )
    block: Count = Field(default=64, description="Most unknowns of a block.")
    rank: Count = Field(default=32, description="Most directions that low_rank corrects.")
    lag: Natural = Field(
        default=0,
        description="Batches of scores the inverse may be behind where an inner loop ends; above 0 a factored one is "
        "rebuilt at each outer iterate while the run goes on.",
    )
    restart: Literal["never", "outer"] = Field(
        default="never", description="The inverse is carried from one outer iteration to the next, or starts anew."
    )


# `lambda` is a word of Python, so that no class can declare an attribute of this name.
_LAMBDA = Field(default="auto", description="With prior: identity, the start is 1/lambda I; auto: by the scale of F.")
if TYPE_CHECKING:
    CurvatureSpec = _Curvature
else:
    CurvatureSpec = create_model(
        "CurvatureSpec", __base__=_Curvature, __doc__=_Curvature.__doc__, **{"lambda": (AutoPositive, _LAMBDA)}
    )


class HypergradientSpec(Section):
    """How far the hypergradient is refined beyond one product with the inverse."""

    refine: Annotated[float | Literal["off", "auto"], Number(above=0, below=1, words=("off", "auto"))] = Field(
        default="auto",
        description="Relative adjoint residual to reach; auto follows outer progress; off: none.",
    )
    debias: Annotated[bool, Flag()] = Field(
        default=True,
        description="With refine: off, correct the bias by the inversion of a sampled matrix; false: A df/du itself.",
    )
    steps: Annotated[int | Literal["auto"], Number(whole=True, least=0, words=("auto",))] = Field(
        default="auto",
        description="Steps or terms of the linear solver, at most; the stochastic compared methods take all of them.",
    )
    step: AutoPositive = Field(
        default="auto",
        description="Length of the linear solver's steps in the compared methods; auto takes it from the spectrum.",
    )
    cross: Annotated[
        int | Literal["expected", "running"], Number(whole=True, least=1, words=("expected", "running"))
    ] = Field(
        default="expected",
        description="Cross derivative: its expectation, its running mean over the inner loop, or that of a number of "
        "fresh samples.",
    )


class AdjointsSpec(Section):
    """What sample_average and robbins_monro, the compared methods over scenarios, do for states and adjoints."""

    solver: Literal["factors", "cg"] = Field(
        default="factors",
        description="Of sample_average: factors of every scenario, or conjugate gradients that those of the nominal "
        "scenario precondition, which robbins_monro takes anyway.",
    )
    tolerance: Annotated[float | Literal["auto"], Number(above=0, below=1, words=("auto",))] = Field(
        default="auto",
        description="Relative error of states and adjoints by conjugate gradients; auto is 0.01 for robbins_monro, and "
        "follows outer progress for sample_average.",
    )
    warm: Annotated[bool, Flag()] = Field(
        default=True, description="Start from what a scenario had last; else from the nominal one."
    )
    batch: Count = Field(default=8, description="Of robbins_monro: scenarios of a step.")
    fresh: Annotated[bool, Flag()] = Field(
        default=False, description="Of robbins_monro: scenarios that no step before has had; else epochs of the sample."
    )


class OuterSpec(Section):
    """The iteration on the control."""

    method: OuterName = Field(
        default="auto",
        description="Descent, Adam, quasi-Newton, active sets or conjugate gradients for a quadratic objective, Newton "
        "with conjugate gradients, moving asymptotes, optimality criteria or signs; auto is, for a quadratic "
        "objective, active_set with bounds or l1 where the control is penalised in l2, and conjugate_gradient without "
        "either; else lbfgs, mma with a volume constraint, newton_cg where the control is a "
        "conductivity, with a state constraint or tv, or h1 with bounds, and gradient with a constant step for methods "
        "that only track the state.",
    )
    iterations: Count = Field(default=200, description="Most outer iterations.")
    rtol: Annotated[float | Literal["auto"], Number(above=0, words=("auto",))] = Field(
        default=1e-8,
        description="Gradient norm to reach, relative to the first. auto: the run ends once the objective is about a "
        "tenth of the error that the mesh leaves above its optimum.",
    )
    atol: Annotated[float, Number(least=0)] = Field(default=0.0, description="Gradient norm to reach.")
    memory: AutoCount = Field(
        default="auto",
        description="Pairs that lbfgs, products that active_set, or gradients that conjugate_gradient remembers; auto "
        "is 100, fewer, down to 20, of large controls.",
    )
    step: AutoPositive = Field(
        default="auto",
        description="First trial step of the line search, constant step of gradient and adam, first step of sign; auto "
        "estimates it, and is 0.1 for sign.",
    )
    decay: Annotated[float | Literal["auto"], Number(above=0, below=1, words=("auto",))] = Field(
        default="auto",
        description="Of sign: factor of the step of a component where its derivative changes sign; auto is 0.5.",
    )
    shift: AutoPositive = Field(
        default="auto",
        description="k0 of steps a / (k + k0)^power without a search, over scenarios: of robbins_monro (auto: 10) and "
        "the strategies saga and streaming (1); a is `step`.",
    )
    power: Annotated[float | Literal["auto"], Number(least=0, words=("auto",))] = Field(
        default="auto",
        description="Of the same: auto is 1 for robbins_monro, and 0, a constant step, for the strategies.",
    )
    move: AutoPositive = Field(
        default="auto",
        description="Longest step of a variable: of oc in its units (auto: 0.2), of mma in ranges of its bounds (0.5).",
    )
    change: Annotated[float | Literal["auto"] | None, Number(above=0, null=True, words=("auto",))] = Field(
        default="auto",
        description="Two steps in a row that change no variable by more than this end the run; auto is 0.01 for oc, "
        "and for mma with a density; else null.",
    )


Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$", description="auto, cpu, cuda or cuda:N.")]


class DevicesSpec(Section):
    """Where the two roles run."""

    inner: Device = "auto"
    curvature: Device = "auto"
    memory: AutoPositive = Field(
        default="auto",
        description="Bytes that the problem may take, which is refused where it would take more; auto: those that the "
        "machine and the limits of the process leave.",
    )


class OutputSpec(Section):
    """What is written while running."""

    every: Natural = Field(default=10, description="Outer iterations between fields; 0: final ones only.")
    checkpoint: Natural = Field(
        default=10, description="Outer iterations between checkpoints; 0: one where the run ends only."
    )
    exceedance: Annotated[float | None, Number(null=True)] = Field(
        default=None, description="With random inputs: write how likely the state is above this value; null: do not."
    )
    estimate: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Estimate the error that the mesh leaves in the objective: auto does so at the end of a run with a "
        "folder if the mesh with halved edges has at most 400,000 cells.",
    )


ExperimentName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$",
        description="A name of letters, digits, '_', '-' and '.'; it names the output folder.",
    ),
]
MethodChoice = Annotated[
    MethodName,
    Field(
        description="Natural hypergradient descent, the exact discrete adjoint, or a compared method; sample_average "
        "and robbins_monro with random inputs alone; hpm searches among several local optima.",
    ),
]
Preset = Annotated[
    Literal["paper"] | None,
    Field(description="Values of several keys at once: paper is the algorithm of arXiv 2602.10905 as it stands there."),
]
Seed = Annotated[Natural, Field(description="Seed of every random number.")]
Files = Annotated[
    str | None,
    Field(
        min_length=1,
        description="A folder, from that of this file, in which files are looked for, too; in the copy in a run folder "
        "it is that of the original file.",
    ),
]
