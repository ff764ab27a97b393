"""TODO: registration."""
