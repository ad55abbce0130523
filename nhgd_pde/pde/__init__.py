"""PDE families as pointwise functions, and the discrete state equation that is built from them."""
