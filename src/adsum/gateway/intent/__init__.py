"""TODO: intent."""
