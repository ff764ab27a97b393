"""TODO: registry_health."""
