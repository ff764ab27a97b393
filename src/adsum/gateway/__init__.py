"""Envoy's control plane without I/O: the routes and upstreams that operators declare, and their xDS resources."""
