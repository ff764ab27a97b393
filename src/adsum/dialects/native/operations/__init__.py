"""TODO: operations."""
