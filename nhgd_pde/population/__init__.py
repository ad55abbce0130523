"""Population search for designs with several local optima, above the outer loop of `engine.minimise`."""
