"""Controls: their spaces, how they enter the equation, and densities."""
