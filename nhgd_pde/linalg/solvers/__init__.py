"""Solvers of linear systems: one file each, and the place where one is chosen."""
