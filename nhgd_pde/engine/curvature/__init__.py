"""Backends of the inverse of the empirical Fisher information matrix (EFIM)."""
