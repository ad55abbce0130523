"""A term of the objective of one's own: what it costs to have a heater neither on nor off."""


def undecided(u, grad, v, x):
    """v (1 - v) of a control between 0 and 1: zero where it is one of both."""
    return v * (1.0 - v)
