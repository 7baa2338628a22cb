"""The page on which people see what was measured and why it was decided so."""
