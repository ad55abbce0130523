"""Patches of neighbouring points, whose sizes differ by at most one."""

from __future__ import annotations

import numpy as np


def patches(points: np.ndarray, size: int) -> np.ndarray:
    """(N,) the patch, 0, 1, ..., of every point, each of at most `size` points.

    The method is recursive coordinate bisection: a set of points for k patches is cut across its longest side into
    shares for k // 2 and k - k // 2 patches. Points (dim, N) at one place, such as several unknowns of a node, keep
    their order.
    """
    if size < 1:
        raise ValueError(f"expected patches of at least 1 point, found {size}")
    count = points.shape[1]
    found = np.zeros(count, dtype=np.int64)
    todo = [(np.arange(count), 0, -(-count // size))]
    while todo:
        members, first, parts = todo.pop()
        if parts <= 1:
            found[members] = first
            continue
        here = points[:, members]
        axis = int(np.argmax(np.ptp(here, axis=1)))
        ordered = members[np.argsort(here[axis], kind="stable")]
        less = parts // 2
        # The first `extra` of all patches have one point more.
        share, extra = divmod(len(members), parts)
        cut = less * share + min(less, extra)
        todo.append((ordered[:cut], first, less))
        todo.append((ordered[cut:], first + less, parts - less))
    return found
