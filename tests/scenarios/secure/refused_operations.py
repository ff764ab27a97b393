"""A program that tries every operation of every dialect: `refused_operations.py NODE XDS CREDENTIALS`.

It prints one JSON document: operation → its status and the text of the response. `CREDENTIALS` is a folder that
`adsum join` wrote; with `none` it sends no token and no certificate, and verifies nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx

from tests.dialects.test_access_matrix import SAMPLES, Sample

TIMEOUT = 20.0
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
XDS_METHODS = (
    f"{ADS}/DeltaAggregatedResources",
    f"{ADS}/StreamAggregatedResources",
    "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats",
    "/envoy.service.metrics.v3.MetricsService/StreamMetrics",
)


async def _native(node: str, folder: Path | None) -> dict[str, tuple[str, str]]:
    headers = {"Authorization": f"Bearer {(folder / 'token').read_text().strip()}"} if folder is not None else {}

    async def answer(http: httpx.AsyncClient, sample: Sample) -> tuple[str, str]:
        target = sample.target.replace("{watch}", "0123456789abcdef")
        async with http.stream(sample.method, target, json=sample.body, headers=headers) as response:
            is_refused = response.status_code >= 400
            return str(response.status_code), (await response.aread()).decode() if is_refused else ""

    async with httpx.AsyncClient(base_url=f"https://{node}", verify=False, trust_env=False, timeout=TIMEOUT) as http:
        answers = await asyncio.gather(*(answer(http, sample) for sample in SAMPLES.values()))
    return dict(zip(SAMPLES, answers, strict=True))


def _xds(xds: str, folder: Path | None) -> dict[str, tuple[str, str]]:
    found = {}
    if folder is None:
        credentials = None
    else:
        files = [(folder / name).read_bytes() for name in ("authority.pem", "client.key", "client.pem")]
        credentials = grpc.ssl_channel_credentials(*files)
    for method in XDS_METHODS:
        with grpc.insecure_channel(xds) if credentials is None else grpc.secure_channel(xds, credentials) as channel:
            call: Any = channel.stream_stream(method, None, None)(iter([b""]), timeout=TIMEOUT)
            try:
                next(call)
                result = "OK", ""
            except grpc.RpcError as error:
                failed: Any = error
                result = failed.code().name, failed.details()
            found[method.rpartition("/")[2]] = result
    return found


def main() -> None:
    node, xds, name = sys.argv[1:]
    folder = None if name == "none" else Path(name)
    sys.stdout.write(json.dumps({**asyncio.run(_native(node, folder)), **_xds(xds, folder)}) + "\n")


if __name__ == "__main__":
    main()
