"""The gRPC transport: grpc.aio in the event loop of the node, with messages as bytes and with limits on peers."""

from adsum.servers.grpc.server import GrpcListenError, GrpcServer

__all__ = ["GrpcListenError", "GrpcServer"]
