"""`adsum demo`: runs a registry, services and callers as real processes, kills some, and counts failed requests."""
