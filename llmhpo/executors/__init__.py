"""Executors behind one protocol: they run the training jobs."""
