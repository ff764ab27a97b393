"""What gateways and gRPC clients are told, in Envoy's words: compiled from the catalog and the intent."""
