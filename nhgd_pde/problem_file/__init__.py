"""The language of problem files: their keys and values, read and checked without torch."""
