"""From a checked problem file to the objects it stands for: mesh, spaces, equation, controls, objective, scenarios."""
