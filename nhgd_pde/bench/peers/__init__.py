"""Hypergradients of other libraries at one point, beside ours: each library behind a thin file of its own.

Left out: `hypertorch` on PyPI is a library for hypergraphs, not the one of hypergradients, which has no release there;
`hypergrad` on PyPI takes its derivatives through functorch, which does not see our sparse products.
"""

from .compare import PeerError, compare_peers, unavailable

__all__ = ["PeerError", "compare_peers", "unavailable"]
