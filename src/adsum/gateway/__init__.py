"""Envoy's control plane without a wire: what is wanted of gateways, and the resources that say it to them. Pure."""
