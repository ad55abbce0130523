"""Runs of several processes: two roles, of which one owns the inverse, or ranks that share the scenarios."""
