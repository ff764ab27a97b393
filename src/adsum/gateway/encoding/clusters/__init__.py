"""Clusters and their endpoints: how gateways reach the instances of a service."""
