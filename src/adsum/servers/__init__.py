"""The transports of a node: servers for HTTP, gRPC, TCP and UDP."""
