"""Optimisation over many scenarios of one equation."""
