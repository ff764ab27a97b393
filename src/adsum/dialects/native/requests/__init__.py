"""TODO: requests."""
