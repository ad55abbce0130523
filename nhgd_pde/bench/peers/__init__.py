"""Hypergradients of other libraries at one point, compared with ours. Each library has one file.

Two libraries are left out. `hypertorch` on PyPI is a library for hypergraphs; the library of hypergradients has no
release there. `hypergrad` on PyPI takes derivatives through functorch, which does not see our sparse products.
"""

from .compare import PeerError, compare_peers, unavailable

__all__ = ["PeerError", "compare_peers", "unavailable"]
