"""The view of a service: followed by a resolver, kept in memory, and cached on disk."""
