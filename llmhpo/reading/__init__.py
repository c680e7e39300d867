"""Static reading of training scripts: what could be tuned, by which name, from which default. Nothing is imported or run."""
