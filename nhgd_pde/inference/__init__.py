"""The posterior of an inverse problem: prior, noise, its Gaussian approximation at the MAP point, and a chain."""
