"""Consul's HTTP API as its clients use it: the address of an agent, services, blocking queries."""
