"""Retraining: when to, what came of it, and who hears of it."""
