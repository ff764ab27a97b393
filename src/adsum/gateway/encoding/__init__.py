"""The encoding of the catalog and the intent as Envoy's messages, for gateways and gRPC clients."""
