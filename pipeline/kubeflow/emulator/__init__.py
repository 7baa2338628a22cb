"""Runs a compiled pipeline locally under the backend's rules."""
