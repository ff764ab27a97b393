"""TODO: harness."""
