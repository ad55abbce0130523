"""Adaptive meshes: solve, estimate the error, refine the cells that it comes from, and go on from there."""
