"""The caller in Python, like those in other languages: `python -m tests.scenarios.grpc.grpc_caller xds:///names`."""

from __future__ import annotations

import sys
import time
from typing import Any

import grpc


def main(target: str) -> None:
    channel = grpc.insecure_channel(target)
    method: Any = channel.unary_unary("/test.Names/Name", request_serializer=bytes, response_deserializer=bytes)
    while True:
        try:
            line = method(b"", timeout=20.0).decode()
        except grpc.RpcError as error:
            line = f"failed: {error}"
        print(line, flush=True)  # noqa: T201 - the test reads it
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1])
