"""PDE families as pointwise functions, and the state equation they make."""
