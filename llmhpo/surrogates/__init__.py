"""Surrogate models behind one protocol, and the screen that ranks candidates with them."""
