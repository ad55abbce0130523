"""Outer methods: where to evaluate next, and what to learn from it. They never evaluate themselves."""
