"""One run: its loop, its records, its checkpoints, its processes and its solution."""
