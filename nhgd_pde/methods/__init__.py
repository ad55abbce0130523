"""Methods to compare with, on the interface and with the outer methods that the engine uses."""
