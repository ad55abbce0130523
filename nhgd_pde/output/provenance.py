"""The versions, the commit and the memory that a result was made with."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

# The packages whose versions are reported.
_PACKAGES = ("nhgd-pde", "torch", "numpy", "scipy", "scikit-fem", "meshio")


@cache
def versions() -> dict[str, str]:
    """The versions of this package, of Python and of the packages that numbers depend on, by their names."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


@cache
def commit() -> str | None:
    """The commit of the source tree this package runs from; None for an installed copy."""
    source = Path(__file__).parents[1]
    if not (source.parent / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(source), "rev-parse", "HEAD"]
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=5).strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory() -> int | None:
    """The largest memory that this process has had, in bytes; None if the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else 1024 * int(peak)
