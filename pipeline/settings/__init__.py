"""The settings of a run: their sections, and where each value came from."""
