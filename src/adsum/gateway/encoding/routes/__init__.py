"""TODO: routes."""
