"""Optimal sensors: which of many candidates to build, so that the posterior of an inverse problem is narrow."""
