"""The gRPC transport: grpc's own server in our loop, passing messages on as bytes, with a bound on what peers take."""

from adsum.servers.grpc.server import GrpcListenError, GrpcServer

__all__ = ["GrpcListenError", "GrpcServer"]
