"""The gRPC probe: asks the standard health service, grpc.health.v1.

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
from adsum.core.model import Check, Instance, Outcome, Result
from adsum.probes.connection import ProbeTarget, authority, probe_outcome, probe_target, resolve_addresses
from adsum.version import __version__

MAX_RESPONSE_BYTES: Final = 4_096
"""How many bytes an answer may have (the real one has two); a longer one is a fail."""
MAX_METADATA_BYTES: Final = 16_384
"""How many bytes of metadata an answer may have; one with more is a fail."""
CONNECT_TIMEOUT_MARGIN: Final = 0.1
"""How many seconds after the check's timeout grpc gives up connecting. It hangs up no sooner, even when cancelled."""

_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),  # A proxy would be asked to go where the fence didn't look.
    ("grpc.use_local_subchannel_pool", 1),  # Each probe makes its own connection, else it would test an old one.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.primary_user_agent", f"adsum-check/{__version__}"),
)

_WORDS: Final = {
    HealthCheckResponse.UNKNOWN: "unknown",
    HealthCheckResponse.NOT_SERVING: "not serving",
    HealthCheckResponse.SERVICE_UNKNOWN: "service unknown",
}


class GrpcProbe:
    """Implements `ports.Probe`.

    With TLS the certificate is verified, which grpc can't be talked out of: against the system's roots (or those that
    SSL_CERT_FILE names), and for the instance's address.
    """

    def __init__(self, address_policy: AddressPolicy, *, excerpts: bool = False) -> None:
        self._fence = address_policy
        self._excerpts = excerpts
        self._credentials: grpc.ChannelCredentials | None = None

    async def probe(self, instance: Instance, check: Check) -> Outcome:
        """See `ports.Probe`."""
        where = probe_target(instance, check)
        return await probe_outcome(check, lambda: self._verdict(where, check))

    async def close(self) -> None:
        """Channels last as long as one probe."""

    async def _verdict(self, where: ProbeTarget, check: Check) -> tuple[Result, str]:
        service, trouble = check.grpc_service, ""
        for ip in await resolve_addresses(where.host, self._fence):
            try:
                return _judge(await self._ask(ip, where, check), service)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    return Result.FAIL, _refusal(error, service, excerpts=self._excerpts)
                trouble = trouble or _unreachable(error, authority(ip, where.port))
        return Result.FAIL, trouble

    async def _ask(self, ip: str, where: ProbeTarget, check: Check) -> int:
        target = f"{'ipv6' if ':' in ip else 'ipv4'}:{authority(ip, where.port)}"
        async with self._channel(target, where, check.timeout) as channel:
            answer = await HealthStub(channel).Check(HealthCheckRequest(service=check.grpc_service))
            return int(answer.status)

    def _channel(self, target: str, where: ProbeTarget, timeout: float) -> grpc.aio.Channel:
        connecting = round((timeout + CONNECT_TIMEOUT_MARGIN) * 1000)
        options: list[tuple[str, Any]] = [
            *_OPTIONS,
            ("grpc.default_authority", where.authority),
            ("grpc.min_reconnect_backoff_ms", connecting),  # the length of one attempt; 20 s if nothing is said
            ("grpc.initial_reconnect_backoff_ms", connecting),
        ]
        if not where.tls:
            return grpc.aio.insecure_channel(target, options)
        if self._credentials is None:
            self._credentials = grpc.ssl_channel_credentials(_roots())
        options.append(("grpc.ssl_target_name_override", where.host))
        return grpc.aio.secure_channel(target, self._credentials, options)


def _judge(status: int, service: str) -> tuple[Result, str]:
    if status == HealthCheckResponse.SERVING:
        return Result.PASS, f"{_named(service)} is serving"
    return Result.FAIL, f"{_named(service)} is {_WORDS.get(status, f'in status {status}')}"


def _named(service: str) -> str:
    return service or "the server"


def _refusal(error: grpc.aio.AioRpcError, service: str, *, excerpts: bool) -> str:
    code = error.code()
    if code is grpc.StatusCode.NOT_FOUND:
        return f"the server doesn't know {service or 'its own health'}"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return "the server doesn't implement grpc.health.v1"
    return f"answered {code.name}: {error.details()}" if excerpts else f"answered {code.name}"


def _unreachable(error: grpc.aio.AioRpcError, where: str) -> str:
    details = error.details() or ""
    if "Connection refused" in details:
        return f"connection refused by {where}"
    return f"no connection to {where}: {details.rpartition('last error: ')[2]}"


def _roots() -> bytes | None:
    """The system's roots; None lets grpc use its own."""
    file = ssl.get_default_verify_paths().cafile
    return Path(file).read_bytes() if file else None
