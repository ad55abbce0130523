"""Values, expressions, names and words for mangled problem files."""

from __future__ import annotations

from typing import Any

NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 7, 1000, 10**6, 10**9, 10**18, 10**30, -(10**9), 10**400),
    *(0.0, -0.0, 0.5, 1.5, -1.0, 1e-30, 1e-300, 5e-324, 1e30, 1e200, 1e308, -1e308, 1e9, 1e5),
    *(float("inf"), float("-inf"), float("nan")),
)
# The words of a list are one text, separated by this.
_BETWEEN = " ;; "
_ODD_TEXTS = tuple(
    (
        "auto ;; null ;; off ;; all ;; x ;; 1 ;; - ;; ~ ;; no ;; 0x10 ;; 1e3 ;; 2001-01-01 ;; left ;; plate"
        " ;; ../x ;; /dev/null ;; /dev/zero ;; . ;; ~nobody/x ;; x.py:f ;; minimal_surface.py:area"
        " ;; minimal_surface.py:soap_film ;; é ;; %YAML ;; &a ;; *a ;; !!int"
    ).split(_BETWEEN)
)
ODD: tuple[Any, ...] = (
    *_ODD_TEXTS,
    *(None, True, False, "", " ", [], {}, [[]], [None], [1, 1], [1, 1, 1], [0, 0], ["x", "y"]),
    *([[1, 0], [0, 1]], {"a": 1}, {"default": 1}, "x" * 3000, "\x00", "\u202e", "\ud800", "a\nb"),
)
_SHORT = tuple(
    (
        "x + ;; (x ;; x) ;; x** ;; x y ;; 2x ;; x^2 ;; x = 1 ;; lambda: 1 ;; x if x else 1 ;; [x for x in y]"
        " ;; x.real ;; __import__('os').system('false') ;; ().__class__ ;; 'x'*10**9 ;; 9**9**9**9 ;; x**1e9"
        " ;; (x)**(64) ;; 1/0 ;; 1/x ;; log(x) ;; log(-1) ;; sqrt(x - 0.5) ;; exp(1000*x) ;; exp(1e5) ;; 0/0*x"
        " ;; 1e308*10*x ;; x**-64 ;; abs(x) ;; foo(x) ;; sin() ;; sin(x, y) ;; where(x)"
        " ;; where(x < 0.5, 1, 1/0) ;; clip(x, 1, 0) ;; minimum(x, y) ;; atan2(0, 0) ;; u ;; t ;; z ;; r ;; 1/r"
        " ;; u**3 ;; a ;; pi ;; e ;; x < y < z ;; not x ;; x and y ;; x#y ;; x;y ;; x\\ ;; x\ty ;; x\n+1"
        " ;; 0x1F*x ;; 1j*x ;; 1_0*x ;; True ;; None ;; ... ;; x@y ;; ~x ;; x if ;; f'{x}' ;; yield x"
        " ;; await x ;; *x ;; x := 1 ;; max(x) ;; inf ;; nan*x ;; floor(x*3) ;; sign(x)*1e300"
    ).split(_BETWEEN)
)
EXPRESSIONS = (*_SHORT, "-" * 300 + "x", "(" * 150 + "x" + ")" * 150, "x" + "+x" * 900)
SOUND = tuple(
    (
        "x ;; 1/x ;; log(x) ;; sqrt(x - 0.5) ;; exp(1000*x) ;; abs(x - 0.5) ;; where(x < 0.5, 1, 0) ;; 1e200*x"
        " ;; 1e-200 ;; x*y ;; r ;; 1/r ;; t ;; z ;; -1 ;; 0 ;; sign(x - 0.5) ;; floor(3*x) ;; x**-64"
        " ;; minimum(x, y) ;; 1e308*10*x ;; pi ;; exp(-(x - 0.5)**2/1e-6) ;; (x > 2) ;; 1 + 1e-16*x"
        " ;; clip(x, 1, 0) ;; atan2(x, y) ;; 1e-300*x ;; x == 0.5"
    ).split(_BETWEEN)
)
_NAMES = tuple(
    (
        "name ;; kind ;; method ;; mesh ;; pde ;; control ;; objective ;; time ;; parameters ;; scenarios"
        " ;; risk ;; seed ;; cells ;; refine ;; size ;; origin ;; cell ;; file ;; steps ;; end ;; initial"
        " ;; scheme ;; weight ;; target ;; on ;; at ;; space ;; bounds ;; norm ;; penalty ;; filter"
        " ;; filter_radius ;; projection ;; boundary ;; points ;; source ;; conductivity ;; reaction"
        " ;; velocity ;; components ;; coefficients ;; python ;; capacity ;; robin ;; dirichlet ;; neumann"
        " ;; absorbing ;; load ;; component ;; smoothing ;; control ;; reference ;; constraints ;; upper"
        " ;; lower ;; count ;; sampling ;; strategy ;; levels ;; batch ;; validation ;; rule ;; level ;; modes"
        " ;; variance ;; length ;; tests ;; noise ;; step ;; tolerance ;; optimiser ;; prior ;; rank ;; block"
        " ;; lag ;; refine ;; cross ;; rtol ;; iterations ;; memory ;; move ;; change ;; shift ;; power"
        " ;; element ;; young ;; poisson_ratio ;; plane ;; complex ;; a.b ;; 0 ;; é ;; << ;; = ;; all ;; left"
        " ;; default"
    ).split(_BETWEEN)
)
NAMES = (*_NAMES, "", " ", "x" * 300)
# Words that can replace each other.
WORDS = tuple(
    tuple(group.split())
    for group in (
        "interval rectangle box disk l_shape",
        "triangle quadrilateral",
        "tetrahedron hexahedron",
        "poisson semilinear advection_diffusion helmholtz elasticity stokes navier_stokes",
        "heat burgers allen_cahn",
        "density conductivity log_conductivity",
        "source neumann robin dirichlet initial conductivity log_conductivity density parameter",
        "tracking compliance linear_state regularisation linear_control",
        "volume state",
        "dense block low_rank factored auto",
        "l2 h1 l1 tv",
        "nhgd adjoint truncated_cg neumann broyden stocbio amigo soba saba nbo_gd nbo_cg",
        "nhgd sample_average robbins_monro nsbo_sgd",
        "lbfgs newton_cg gradient adam mma oc",
        "P0 P1 P2 time constant",
        "left right top bottom front all plate pad",
        "growing all saga streaming",
        "monte_carlo quasi quadrature",
        "final all",
        "implicit_euler crank_nicolson",
        "helmholtz cone sensitivity",
        "strain stress",
    )
)
