"""Random inputs of a PDE, and how their scenarios are sampled."""
