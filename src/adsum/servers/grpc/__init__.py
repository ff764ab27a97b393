"""The gRPC transport: grpc's own server in our loop, passing messages on as bytes, with a bound on what peers take."""

from adsum.servers.grpc.server import GrpcServer, ListenRefused

__all__ = ["GrpcServer", "ListenRefused"]
