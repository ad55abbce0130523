"""The language of problem files: what they may say, read and checked without torch."""
