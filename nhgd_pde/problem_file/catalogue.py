"""Everything that a problem file chooses by a name, and the place of each in the package.

Places are text (`module:class`, below the package), so that reading a problem file loads only the methods that the file
names. To add a choice, write its file and add one line here; docs/extending.md has an example of each.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

EQUATIONS = {
    "poisson": "building.families.diffusion:PoissonSpec",
    "semilinear": "building.families.diffusion:SemilinearSpec",
    "advection_diffusion": "building.families.advection:AdvectionDiffusionSpec",
    "heat": "building.families.diffusion:HeatSpec",
    "burgers": "building.families.burgers:BurgersSpec",
    "allen_cahn": "building.families.allen_cahn:AllenCahnSpec",
    "elasticity": "building.families.elasticity:ElasticitySpec",
    "stokes": "building.families.flow:StokesSpec",
    "navier_stokes": "building.families.flow:NavierStokesSpec",
    "helmholtz": "building.families.helmholtz:HelmholtzSpec",
    "wave": "building.families.wave:WaveSpec",
    "python": "building.families.python:PythonSpec",
}
"""pde.kind, or pde.python: the equations (`building.families.base.Equation`), whose files load no torch."""

TERMS = {
    "tracking": "building.objective_terms.tracking:TrackingTerm",
    "linear_state": "building.objective_terms.linear_state:LinearStateTerm",
    "compliance": "building.objective_terms.compliance:ComplianceTerm",
    "regularisation": "building.objective_terms.regularisation:RegularisationTerm",
    "linear_control": "building.objective_terms.linear_control:LinearControlTerm",
    "python": "building.objective_terms.own_density:PythonTerm",
}
"""objective[].kind: the terms of the objective (`building.objective_terms.base.Term`), whose files load no torch."""

CONSTRAINTS = {
    "volume": "building.constraint_kinds.volume:VolumeSpec",
    "state": "building.constraint_kinds.state:StateSpec",
}
"""constraints[].kind: the constraints (`building.constraint_kinds.base.Condition`), whose files load no torch."""

TASKS = {
    "data_cleaning": "tasks.data_cleaning:DataCleaning",
    "data_distillation": "tasks.data_distillation:DataDistillation",
}
"""task.kind: the tasks of machine learning (`tasks.base.LearningTask`), whose files load no torch."""

METHODS = {
    "truncated_cg": "methods.truncated_cg:TruncatedCG",
    "neumann": "methods.neumann:Neumann",
    "broyden": "methods.broyden:Broyden",
    "stocbio": "methods.stocbio:StocBiO",
    "amigo": "methods.amigo:AmIGO",
    "soba": "methods.soba:SOBA",
    "saba": "methods.saba:SABA",
    "nbo_gd": "methods.nbo:NBOGD",
    "nbo_cg": "methods.nbo:NBOCG",
    "nsbo_sgd": "methods.nbo:NSBOSGD",
    "nsbo_saga": "methods.nsbo_saga:NSBOSAGA",
    "ma_nsbo_saga": "methods.nsbo_saga:MANSBOSAGA",
}
"""method: the compared methods for problems without random inputs (`methods.compared_method.Compared`)."""

EVOLUTION_METHODS = {
    "fds": "methods.fds:FDS",
}
"""method: the compared methods for evolutions alone (`methods.compared_method.Compared`)."""

SCENARIO_METHODS = {
    "sample_average": "methods.sample_average:SampleAverage",
    "robbins_monro": "methods.robbins_monro:RobbinsMonro",
}
"""method: the compared methods for problems with random inputs (`methods.compared_method.Compared`)."""

SEARCHES = {
    "hpm": "population.options:PopulationOptions",
}
"""method: searches among several local optima, whose local searches are those of nhgd."""

CURVATURES = {
    "dense": "engine.curvature.dense:Dense",
    "block": "engine.curvature.block:Block",
    "factored": "engine.curvature.factored:Factored",
    "low_rank": "engine.curvature.low_rank:LowRank",
    "kfac": "engine.curvature.kfac:KFAC",
}
"""curvature.kind: the inverse Fisher information (`engine.curvature.base.LocalBackend`)."""

OUTER_METHODS = {
    "gradient": "engine.outer.gradient:GradientDescent",
    "adam": "engine.outer.adam:Adam",
    "lbfgs": "engine.outer.lbfgs:LBFGS",
    "active_set": "engine.outer.active_set:ActiveSet",
    "conjugate_gradient": "engine.outer.conjugate_gradient:ConjugateGradient",
    "newton_cg": "engine.outer.newton_cg:NewtonCG",
    "mma": "engine.outer.mma:MMA",
    "oc": "engine.outer.oc:OC",
    "sign": "engine.outer.sign:SignSteps",
}
"""outer.method: how the control moves (`engine.outer.base.OuterMethod`)."""

SOLVERS = {
    "superlu": "linalg.solvers.superlu:SuperLU",
    "amg": "linalg.solvers.amg:AMG",
    "cholmod": "linalg.solvers.cholmod:Cholmod",
    "pardiso": "linalg.solvers.pardiso:Pardiso",
    "cudss": "linalg.solvers.cudss:CuDSS",
    "petsc": "linalg.solvers.petsc:PETSc",
}
"""solver.kind: the solvers of linear systems (`linalg.solvers.base.Solver`)."""


def found_at(place: str) -> Any:
    """The class at a place of the catalogue; its module is loaded now."""
    module, _, name = place.partition(":")
    return getattr(import_module(f"{__package__.rpartition('.')[0]}.{module}"), name)
