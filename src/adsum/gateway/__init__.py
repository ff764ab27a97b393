"""Envoy's control plane without I/O: what operators want of gateways, and the xDS resources that express it. Pure."""
