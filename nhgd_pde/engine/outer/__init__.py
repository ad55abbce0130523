"""Outer methods: where to evaluate next, and what to learn from an evaluation. They never evaluate themselves."""
