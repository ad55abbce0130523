"""Bilevel tasks of machine learning on the same engine: data cleaning and data distillation."""
