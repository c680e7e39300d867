"""Isolated runs of code that nobody has read: bwrap, else Landlock with seccomp, else a refusal with its reason."""
