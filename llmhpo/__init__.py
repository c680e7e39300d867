"""hyperparameter optimization driven by a language model."""
