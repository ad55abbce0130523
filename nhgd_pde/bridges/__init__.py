"""The reduced objective Phi(v) = f(u(v), v) for optimisers and networks of other libraries: NumPy, SciPy and torch."""
