"""How a problem is solved: which method, inverse and solver a file takes, why, and what they will cost."""
