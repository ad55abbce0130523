"""Studies: many runs of one problem, with settings that are varied."""
