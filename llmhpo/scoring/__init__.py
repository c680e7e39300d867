"""Trusted scoring: what a job wrote is read by code that the job cannot touch, in a process that it never shared."""
