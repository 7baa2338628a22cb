"""Measures the generator and blesses it when it is good enough."""
