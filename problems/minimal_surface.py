"""Functions of one's own: the equation of a soap film, its area as a term of the objective, and a bounded actuator."""

import torch


def soap_film(u, grad, c, x):
    """int grad u . grad phi / sqrt(1 + |grad u|^2) - source phi: the mean curvature is the source."""
    return -c["source"], grad / torch.sqrt(1.0 + (grad**2).sum(0))


def area(u, grad, v, x):
    """The area of the film, less that of the plane."""
    return torch.sqrt(1.0 + (grad**2).sum(0)) - 1.0


def actuator(coefficients, v):
    """A pressure that saturates at 1."""
    return {**coefficients, "source": coefficients["source"] + torch.tanh(v)}
