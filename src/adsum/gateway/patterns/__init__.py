"""TODO: patterns."""
