"""Metrics of generated images, as plain functions of NumPy arrays: pixels, features, logits."""
