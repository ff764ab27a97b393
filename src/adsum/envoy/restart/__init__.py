"""TODO: restart."""
