"""Statistical models of the state equation: whose negative log-likelihood is the inner objective."""
