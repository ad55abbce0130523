"""`python -m nhgd_pde`."""

from .run.child import be_helper, end_with_leader

if be_helper():
    end_with_leader()

from .cli import main

main()
