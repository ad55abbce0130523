"""The problem file: its vocabulary, its expressions, and how it is read and checked."""
