"""TODO: listeners."""
