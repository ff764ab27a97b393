"""TODO: route_check."""
