"""TODO: streams."""
