"""How much memory a process may still allocate: the free memory of the machine, and the limits of the process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Addresses that libraries take beyond the memory that they fill, which count towards a limit of addresses.
_RESERVED = 6e8


def available_bytes(device: torch.device) -> float:
    """Bytes that can still be allocated on a device; infinite where the system does not say."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.mem_get_info(device)[0])
    return host_bytes()


def host_bytes() -> float:
    """Bytes that this process can still allocate on the host; infinite where the system does not say.

    It is the least of three numbers: the free memory of the machine, what is left of the limits of the control groups
    of the process, and what is left of its limit of addresses (`ulimit -v`).
    """
    return max(min(_left_on_machine(), group_bytes(), _limit_of_addresses() - _own_sizes()[0]), 0.0)


def whole_bytes() -> float:
    """Bytes that this process can have altogether, including those that it has already."""
    addresses, filled = _own_sizes()
    of_addresses = _limit_of_addresses() - max(addresses - filled, _RESERVED)
    return max(min(filled + min(_left_on_machine(), group_bytes()), of_addresses), 0.0)


def group_bytes(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Bytes that are left of the limits of the control groups (Linux, version 1 and 2); infinite without a limit.

    `proc` is the list of the groups, and `root` the folder of their files.
    """
    left = float("inf")
    for folder in _groups(proc, root):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            # The system frees the memory of cached files when it is needed.
            left = min(left, limit - used + _cached(folder / "memory.stat"))
    return left


def _groups(proc: Path, root: Path) -> Iterator[Path]:
    """The folders of a process and of the groups above it."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "memory" if controllers else root
        # In a container the path may be the one on the host, of which only the mount point is visible.
        here = base / path.lstrip("/")
        yield from (each for each in (here, *here.parents) if each == base or base in each.parents)


def _number(*paths: Path) -> float | None:
    """The number in the first file that exists; None where no file exists, and for the word `max`."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            return float(path.read_text(encoding="ascii"))
    return None


def _cached(path: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        words = dict(line.split(" ", 1) for line in path.read_text(encoding="ascii").splitlines())
        return float(words.get("total_inactive_file", words.get("inactive_file", "0")))
    return 0.0


def _left_on_machine() -> float:
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return 1024.0 * float(line.split()[1])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return float("inf")


def _limit_of_addresses() -> float:
    try:
        import resource
    except ImportError:
        return float("inf")
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min(float("inf") if limit == resource.RLIM_INFINITY else float(limit) for limit in limits)


def _own_sizes() -> tuple[float, float]:
    """Bytes of addresses and of memory that this process has; zeros where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()
        size = float(os.sysconf("SC_PAGE_SIZE"))
        return size * float(pages[0]), size * float(pages[1])
    except (OSError, ValueError, AttributeError):
        return 0.0, 0.0
