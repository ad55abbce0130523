"""The families of equations: the section of each in a problem file, and what the builder makes of it."""
