"""How many threads torch works with, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def at_most_threads(count: int | None) -> Iterator[None]:
    """Limit torch's threads within a `with` block; None leaves them alone.

    Vectors of less than some hundred thousand numbers gain next to nothing from a second thread, and where another
    process wants the same cores, every operation waits for the slower one: runs of a second were seen to take forty.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(min(before, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
