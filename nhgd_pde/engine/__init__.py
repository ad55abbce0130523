"""Natural Hypergradient Descent for any bilevel problem; it knows `bilevel.py` and linear algebra, never a PDE."""
