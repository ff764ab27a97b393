"""Watches of services at a registry: one stream for all services of a client, over connections that break."""
