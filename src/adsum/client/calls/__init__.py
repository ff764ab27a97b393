"""TODO: calls."""
