"""Benchmarks of several methods on the same problems, judged on a copy of each problem, off the clock."""
