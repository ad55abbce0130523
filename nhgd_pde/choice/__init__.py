"""How a problem is solved: which method and inverse a file takes, why, and how much memory they need."""
