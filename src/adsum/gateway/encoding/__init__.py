"""Envoy's messages: how the catalog and the intent are encoded for gateways and gRPC clients."""
