"""Access control of a node: authenticates callers, and ends their streams when a token is revoked."""
