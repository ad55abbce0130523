"""Small inverse problems with sensors, and the matrices of the first of them by formulas of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

NOISE, LENGTH, STD = 0.002, 0.3, 1.5


def sensor_file(folder: Path, points: np.ndarray, values: np.ndarray, name: str = "sensors.csv") -> str:
    """A file of sensors with points (count, dim) and values (count,)."""
    path = folder / name
    np.savetxt(path, np.column_stack([points, values]), delimiter=",", fmt="%.17g")
    return str(path)


def source_inversion(file: str, cells: int = 12, **sections: Any) -> dict[str, Any]:
    """The source of Poisson's equation from values of the state: linear and normal."""
    found: dict[str, Any] = {
        "name": "source_inversion",
        "mesh": {"kind": "rectangle", "cells": [cells, cells]},
        "pde": {"kind": "poisson", "source": "x", "boundary": {"all": {"dirichlet": 0}}},
        "control": {"kind": "source", "initial": "0.5*y"},
        "objective": [{"kind": "tracking", "at": file}],
        "inference": {"noise": NOISE, "prior": {"length": LENGTH, "std": STD}, "threshold": 1e-13},
        "outer": {"rtol": 1e-12},
    }
    inference = sections.pop("inference", {})
    return {**found, **sections, "inference": {**found["inference"], **inference}}


def conductivity_inversion(file: str, cells: int = 12, **sections: Any) -> dict[str, Any]:
    """The logarithm of a conductivity from values of the state, as in hIPPYlib's Poisson tutorial."""
    found: dict[str, Any] = {
        "name": "conductivity_inversion",
        "mesh": {"kind": "rectangle", "cells": [cells, cells]},
        "pde": {
            "kind": "poisson",
            "source": 0,
            "boundary": {"bottom": {"dirichlet": 0}, "top": {"dirichlet": 1}},
        },
        "control": {"kind": "log_conductivity"},
        "objective": [{"kind": "tracking", "at": file}],
        "inference": {"noise": 0.01, "prior": {"length": LENGTH, "std": 1}},
    }
    inference = sections.pop("inference", {})
    return {**found, **sections, "inference": {**found["inference"], **inference}}


def grid_points(count: int) -> np.ndarray:
    """(count^2, 2) points of a grid inside the unit square, none of them a node."""
    line = (np.arange(count) + 0.53) / (count + 0.06)
    return np.stack([axis.reshape(-1) for axis in np.meshgrid(line, line, indexing="ij")], axis=1)


class DensePoisson:
    """Matrices of linear elements on triangles, each by its textbook formula and a loop over the cells.

    Attributes:
        stiffness, mass, lumped, edge: (n, n); the last one is the mass matrix of the boundary.
        inside: (n,) a mask of the nodes that are not on the boundary.
    """

    def __init__(self, points: np.ndarray, cells: np.ndarray) -> None:
        self.points, self.cells = points, cells
        n = len(points)
        self.stiffness, self.mass, self.edge = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
        sides: dict[tuple[int, int], int] = {}
        for cell in cells:
            a, b, c = points[cell]
            jacobian = np.column_stack([b - a, c - a])
            area = 0.5 * abs(np.linalg.det(jacobian))
            gradients = np.linalg.inv(jacobian).T @ np.array([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
            self.stiffness[np.ix_(cell, cell)] += area * gradients.T @ gradients
            self.mass[np.ix_(cell, cell)] += area / 12.0 * (np.ones((3, 3)) + np.eye(3))
            for i, j in ((0, 1), (1, 2), (0, 2)):
                side = (min(cell[i], cell[j]), max(cell[i], cell[j]))
                sides[side] = sides.get(side, 0) + 1
        outer = [side for side, count in sides.items() if count == 1]
        for i, j in outer:
            length = np.linalg.norm(points[i] - points[j])
            self.edge[np.ix_([i, j], [i, j])] += length / 6.0 * (np.ones((2, 2)) + np.eye(2))
        self.lumped = np.diag(self.mass.sum(axis=1))
        self.inside = np.ones(n, dtype=bool)
        self.inside[np.unique(outer)] = False

    def observation(self, where: np.ndarray) -> np.ndarray:
        """(count, n) the values at points, by barycentric coordinates."""
        found = np.zeros((len(where), len(self.points)))
        for row, point in zip(found, where, strict=True):
            for cell in self.cells:
                a, b, c = self.points[cell]
                local = np.linalg.solve(np.column_stack([b - a, c - a]), point - a)
                shares = np.array([1.0 - local.sum(), *local])
                if (shares >= -1e-12).all():
                    row[cell] = shares
                    break
        return found

    def state(self, source: np.ndarray) -> np.ndarray:
        """The state of nodal values of a source, zero on the boundary."""
        inside = self.inside
        found = np.zeros(len(self.points))
        found[inside] = np.linalg.solve(self.stiffness[np.ix_(inside, inside)], (self.mass @ source)[inside])
        return found
