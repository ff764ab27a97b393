"""The gRPC probe: calls the standard health service, grpc.health.v1.

The statuses and codes are those of the gRPC health checking protocol (grpc/doc/health-checking.md).
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from adsum.core.address_policy import AddressPolicy
from adsum.core.addresses import format_host_port
from adsum.core.model import Check, Instance, Outcome, Result
from adsum.probes.connection import ProbeTarget, probe_outcome, probe_target, resolve_addresses
from adsum.version import __version__

MAX_RESPONSE_BYTES: Final = 4_096
"""Bytes of an answer. A longer one is a fail; a proper answer has two."""
MAX_METADATA_BYTES: Final = 16_384
"""Bytes of metadata of an answer. An answer with more is a fail."""
CONNECT_TIMEOUT_MARGIN: Final = 0.1
"""Seconds after the check's timeout at which grpc stops connecting. It does not stop sooner, even if cancelled."""

_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),  # A proxy could connect to addresses that the policy denies.
    ("grpc.use_local_subchannel_pool", 1),  # Each probe makes a new connection instead of testing an old one.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.primary_user_agent", f"adsum-check/{__version__}"),
)

_STATUS_TEXTS: Final = {
    HealthCheckResponse.UNKNOWN: "unknown",
    HealthCheckResponse.NOT_SERVING: "not serving",
    HealthCheckResponse.SERVICE_UNKNOWN: "service unknown",
}


class GrpcProbe:
    """Implements `ports.Probe`.

    With TLS the certificate is verified, since grpc can't turn that off: against the system's roots, or those of
    SSL_CERT_FILE, and for the instance's address.
    """

    def __init__(self, address_policy: AddressPolicy, *, excerpts: bool = False) -> None:
        self._address_policy = address_policy
        self._excerpts = excerpts
        self._credentials: grpc.ChannelCredentials | None = None

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """Implements `ports.Probe`."""
        target = probe_target(instance, check)
        return await probe_outcome(check, lambda: self._verdict(target, check))

    async def close(self) -> None:
        """Does nothing: no channel outlives its probe."""

    async def _verdict(self, target: ProbeTarget, check: Check) -> tuple[Result, str]:
        service, problem = check.grpc_service, ""
        for ip in await resolve_addresses(target.host, self._address_policy):
            try:
                return _judge(await self._call(ip, target, check), service)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    return Result.FAIL, _describe_refusal(error, service, excerpts=self._excerpts)
                problem = problem or _describe_failure(error, format_host_port(ip, target.port))
        return Result.FAIL, problem

    async def _call(self, ip: str, target: ProbeTarget, check: Check) -> int:
        uri = f"{'ipv6' if ':' in ip else 'ipv4'}:{format_host_port(ip, target.port)}"
        async with self._channel(uri, target, check.timeout) as channel:
            answer = await HealthStub(channel).Check(HealthCheckRequest(service=check.grpc_service))
            return int(answer.status)

    def _channel(self, uri: str, target: ProbeTarget, timeout: float) -> grpc.aio.Channel:
        connect_timeout = round((timeout + CONNECT_TIMEOUT_MARGIN) * 1000)
        options: list[tuple[str, Any]] = [
            *_OPTIONS,
            ("grpc.default_authority", target.authority),
            ("grpc.min_reconnect_backoff_ms", connect_timeout),  # the length of one attempt; 20 s by default
            ("grpc.initial_reconnect_backoff_ms", connect_timeout),
        ]
        if not target.tls:
            return grpc.aio.insecure_channel(uri, options)
        if self._credentials is None:
            self._credentials = grpc.ssl_channel_credentials(_roots())
        options.append(("grpc.ssl_target_name_override", target.host))
        return grpc.aio.secure_channel(uri, self._credentials, options)


def _judge(status: int, service: str) -> tuple[Result, str]:
    if status == HealthCheckResponse.SERVING:
        return Result.PASS, f"{service or 'the server'} is serving"
    return Result.FAIL, f"{service or 'the server'} is {_STATUS_TEXTS.get(status, f'in status {status}')}"


def _describe_refusal(error: grpc.aio.AioRpcError, service: str, *, excerpts: bool) -> str:
    code = error.code()
    if code is grpc.StatusCode.NOT_FOUND:
        return f"the server doesn't know {service or 'its own health'}"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return "the server doesn't implement grpc.health.v1"
    return f"answered {code.name}: {error.details()}" if excerpts else f"answered {code.name}"


def _describe_failure(error: grpc.aio.AioRpcError, peer: str) -> str:
    details = error.details() or ""
    if "Connection refused" in details:
        return f"connection refused by {peer}"
    return f"no connection to {peer}: {details.rpartition('last error: ')[2]}"


def _roots() -> bytes | None:
    """Returns the system's root certificates; None if there are none, so that grpc uses its own."""
    file = ssl.get_default_verify_paths().cafile
    return Path(file).read_bytes() if file else None
