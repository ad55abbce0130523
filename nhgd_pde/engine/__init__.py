"""Natural Hypergradient Descent for any bilevel problem: it knows linear algebra, never a PDE."""
