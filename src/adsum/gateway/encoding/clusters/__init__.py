"""Clusters, their endpoints and TLS: the messages by which gateways reach the instances of a service."""
