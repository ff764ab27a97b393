"""A gRPC server that registers without any setting: `grpc_server.py SERVICE NAME`. It answers calls with NAME."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

import adsum
from adsum.integrations.grpc import sync_serving


def main() -> None:
    service, name = sys.argv[1:]
    answer = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    server = grpc.server(ThreadPoolExecutor())
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Names", {"Name": answer}),))
    port = server.add_insecure_port("0.0.0.0:0")
    with adsum.SyncClient() as client, sync_serving(client, server, service, port, id=name):
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        server.wait_for_termination()


if __name__ == "__main__":
    main()
