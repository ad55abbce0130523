"""Sparse matrices, factorisations, Krylov methods and Riesz maps: everything below the mathematics of a problem."""
