"""Measures a generator, compares it with the one being served, and decides."""
