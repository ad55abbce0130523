"""The kinds of data in problem files: each file reads one kind into a function of the coordinates."""
