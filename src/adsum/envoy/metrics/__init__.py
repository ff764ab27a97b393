"""TODO: metrics."""
