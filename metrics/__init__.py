"""Figures of merit of a generator, as plain functions of arrays."""
