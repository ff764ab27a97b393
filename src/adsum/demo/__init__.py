"""`adsum demo`: a registry, services and a caller as real processes, through a bad day; it ends with the count."""
