"""Random inputs of a PDE, samples of their scenarios, and estimates of expectations."""
