"""Names that other programs and textbooks have for the words of a problem file: `laplace` for `poisson`.

To add a hint, add a name to the line of its word in `OTHER_NAMES`. A name is a hint only where its word may stand, so
that one name can have several words: `nu` is `poisson_ratio` in elasticity and `viscosity` in a flow.
"""

from __future__ import annotations

from collections.abc import Iterable

OTHER_NAMES = {
    # pde.kind
    "poisson": "laplace laplacian laplace_equation diffusion steady_diffusion steady_heat stationary_heat thermal "
    "conduction heat_conduction darcy electrostatics elliptic",
    "heat": "heat_equation heat_transfer thermal transient_heat unsteady_heat parabolic diffusion_equation "
    "transient_diffusion unsteady_diffusion",
    "semilinear": "nonlinear nonlinear_poisson nonlinear_diffusion reaction_diffusion nonlinear_elliptic bratu",
    "advection_diffusion": "advection convection convection_diffusion transport drift_diffusion adr "
    "advection_diffusion_reaction convection_diffusion_reaction scalar_transport",
    "helmholtz": "helmholz helmholtz_equation acoustic acoustics time_harmonic scattering",
    "wave": "wave_equation waves acoustic_wave hyperbolic",
    "elasticity": "elastic linear_elastic linear_elasticity lame navier_lame solid structural mechanics hooke "
    "plane_stress plane_strain",
    "stokes": "stokes_flow creeping_flow fluid",
    "navier_stokes": "ns navier navierstokes incompressible incompressible_navier_stokes flow fluid cfd",
    "burgers": "burgers_equation viscous_burgers inviscid_burgers",
    "allen_cahn": "phase_field phasefield ginzburg_landau",
    "python: ...": "custom own user form weak_form variational variational_form ufl residual",
    # mesh.kind
    "interval": "line unit_interval unitinterval unitintervalmesh intervalmesh 1d",
    "rectangle": "square unit_square unitsquare unitsquaremesh rectanglemesh rect 2d",
    "box": "cube unit_cube unitcube unitcubemesh boxmesh brick cuboid 3d",
    "disk": "circle disc unit_disk unit_disc unitdiskmesh",
    "l_shape": "lshape l_shaped lshaped",
    "file: ...": "file gmsh msh meshio xdmf vtk",
    # control.kind
    "source": "distributed distributed_control force forcing body_force volume_force rhs right_hand_side f load",
    "neumann": "flux boundary boundary_control boundary_flux traction natural",
    "dirichlet": "boundary_value boundary_values boundary boundary_control fixed clamped essential value",
    "robin": "impedance convective exchange mixed",
    "absorbing": "radiation sommerfeld open non_reflecting transparent",
    "initial": "initial_condition initial_conditions initial_state initial_value ic u0 start",
    "conductivity": "diffusivity diffusion diffusion_coefficient permeability thermal_conductivity coefficient kappa k "
    "material",
    "log_conductivity": "log_diffusivity log_permeability log_coefficient lognormal",
    "density": "topology topology_optimization topology_optimisation simp material design",
    "parameter": "number scalar real constant coefficient",
    # objective[].kind, constraints[].kind
    "tracking": "misfit least_squares data_misfit data observation observations sensors mse desired_state l2_tracking",
    "regularisation": "tikhonov penalty l1 l2 h1 tv total_variation sparsity smoothness control_cost",
    "compliance": "strain_energy stiffness work",
    "linear_state": "mean average integral",
    "volume": "volume_fraction volfrac mass area",
    "state": "state_bounds state_constraint pointwise bounds",
    # method, outer.method, curvature.kind, solver.kind
    "nhgd": "natural_gradient natural natural_hypergradient",
    "adjoint": "discrete_adjoint exact exact_adjoint dolfin_adjoint",
    "sample_average": "saa",
    "robbins_monro": "sgd stochastic_gradient",
    "gradient": "gd gradient_descent steepest_descent projected_gradient sgd",
    "lbfgs": "bfgs l_bfgs l_bfgs_b lbfgsb quasi_newton",
    "active_set": "pdas primal_dual_active_set semismooth_newton ssn active_sets qp",
    "conjugate_gradient": "cg ncg nonlinear_cg",
    "newton_cg": "newton gauss_newton truncated_newton inexact_newton trust_region",
    "mma": "gcmma svanberg",
    "oc": "optimality_criteria",
    "factored": "sparse lu cholesky",
    "superlu": "lu splu direct umfpack sparse_lu",
    "amg": "multigrid pyamg hypre boomeramg cg iterative",
    "cholmod": "cholesky",
    "pardiso": "mkl",
    "petsc": "mumps",
    "cudss": "cuda gpu",
    # Keys
    "boundary": "bc bcs boundaries boundary_condition boundary_conditions",
    "velocity": "wind beta advection",
    "viscosity": "nu mu",
    "young": "e youngs_modulus young_modulus",
    "poisson_ratio": "nu poissons_ratio",
    "wavenumber": "k frequency omega",
    "capacity": "heat_capacity rho",
    "target": "u_d ud y_d yd desired desired_state",
    "weight": "alpha factor lambda",
    "rtol": "tol tolerance gtol",
    "iterations": "maxiter max_iter maxiterations max_iterations",
    "end": "final_time t_end tend t",
    "steps": "num_steps n_steps nt dt",
    "cells": "n nx resolution",
    "size": "length lengths radius",
    "refine": "refinement refinements level",
}
"""Word of a problem file -> its other names, in lower case and with `_` between parts."""


def words_for(name: str, known: Iterable[str]) -> list[str]:
    """The known words that `name` is another name of."""
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    return [word for word in known if plain != word and plain in OTHER_NAMES.get(word, "").split()]
