"""Benchmarks of several methods on the same problems: contenders, trials, measurements and reports.

Nothing here changes the numbers of a run: values and gradients are judged on a copy of the problem, off the clock.
"""
