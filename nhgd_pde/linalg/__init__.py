"""Sparse matrices, factorisations, Krylov methods and Riesz maps: all that lies below the equations."""
