"""Credentials of a host that has joined a registry: its token, the registry's authority, and its own certificate."""
