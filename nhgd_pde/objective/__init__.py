"""The objective and the constraints."""
