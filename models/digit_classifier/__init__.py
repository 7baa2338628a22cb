"""The classifier whose features measure the generator."""
