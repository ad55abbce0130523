"""Methods side by side on the same problems: who runs, what is measured, and how it is told.

Nothing here changes the numbers of a run: values and gradients are judged on a copy of the problem, off the clock.
"""
