"""TODO: liveness."""
