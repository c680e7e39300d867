"""Chaos: what a study must survive, done to real studies with real processes, and counted. See `python -m evals.chaos --help`."""
