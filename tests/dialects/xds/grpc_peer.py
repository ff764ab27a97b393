"""Programs that know nothing of Adsum: `serve NAME` is a gRPC server, `call TARGET` a client."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

METHOD = "/test.Names/Name"


def serve(name: str) -> None:
    """Serves answers with the name, after printing the port as the first line."""

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        return name.encode()

    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {"Name": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Names", handlers),))
    _print_line(str(server.add_insecure_port("127.0.0.1:0")))
    server.start()
    server.wait_for_termination()


def call(target: str) -> None:
    """Calls without end, and prints a line for each answer."""
    with grpc.insecure_channel(target) as channel:
        method = channel.unary_unary(METHOD, None, None)
        while True:
            try:
                line = method(b"", timeout=10.0).decode()
            except grpc.RpcError as error:
                line = f"{error.code().name} {error.details()}"
            _print_line(line)
            time.sleep(0.01)


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](sys.argv[2])
