"""Tries the exported model in a process of its own."""
