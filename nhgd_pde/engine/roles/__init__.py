"""The curvature role in a process of its own, on a device of its own, beside the inner role."""
