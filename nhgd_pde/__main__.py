"""`python -m nhgd_pde`."""

from .cli import main

main()
