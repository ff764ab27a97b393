"""TODO: resources."""
