"""Proposers behind one protocol, and the portfolio that decides whom to trust."""
