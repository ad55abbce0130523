"""Controls: their spaces, their maps into the coefficients of the equation, densities and filters."""
