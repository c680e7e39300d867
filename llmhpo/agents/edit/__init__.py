"""Search over code and configurations together: edits by the model, tuned by the classical engine."""
