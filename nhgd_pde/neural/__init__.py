"""Neural states: the state of a PDE is a network, whose parameters are the inner variables."""
