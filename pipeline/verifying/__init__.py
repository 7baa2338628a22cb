"""Is what an endpoint serves what was blessed? `local_runner.py verify`."""
