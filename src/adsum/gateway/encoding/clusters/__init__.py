"""TODO: clusters."""
