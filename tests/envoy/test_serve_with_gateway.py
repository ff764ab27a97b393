"""A registry and its gateway under one command, `adsum serve --gateway`."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from adsum import Client
from adsum.client.credentials.folder import CredentialsFolder
from adsum.config.serve import ServeConfig
from adsum.core.errors import Invalid
from tests.envoy.gateway_command import (
    GatewayAddresses,
    GatewayCommand,
    SteadyCaller,
    UpstreamServer,
    get,
    has_exited,
    wait_until,
)
from tests.support.certificates import certificate

Serve = Callable[..., tuple[GatewayCommand, str]]


@pytest.fixture
def serve(tmp_path: Path, addresses: GatewayAddresses, port: Callable[[], int]) -> Iterator[Serve]:
    """Starts `adsum serve --gateway` with the table [gateway] in the file. Returns the command and the registry URL."""
    started: list[GatewayCommand] = []

    def start(table: str = "", *options: str) -> tuple[GatewayCommand, str]:
        (tmp_path / "adsum.toml").write_text(
            f'[gateway]\nmonitor = "{addresses.monitor}"\nconcurrency = 2\ndrain_timeout = 1\n{table}'
        )
        url = f"127.0.0.1:{port()}"
        args = ("--listen", url, "--xds", f"127.0.0.1:{port()}", "--store", "memory:", "--gateway", addresses.listen)
        args += options  # type: ignore[assignment]
        started.append(GatewayCommand(tmp_path, args, {}, command="serve"))
        return started[-1], f"http://{url}"

    yield start
    for command in started:
        command.kill()


def register(url: str, upstream: UpstreamServer) -> None:
    body = {"address": "127.0.0.1", "port": upstream.port, "ttl": None}
    answer = httpx.put(f"{url}/api/v1/services/orders/instances/a", json=body, trust_env=False)
    assert answer.status_code in (200, 201), answer.text


def test_one_command_serves_registry_and_gateway(
    serve: Serve, addresses: GatewayAddresses, upstream: UpstreamServer
) -> None:
    running, url = serve()
    running.wait_for_output(f"adsum gateway listens on {addresses.url}")
    register(url, upstream)
    with httpx.Client(trust_env=False) as client:
        wait_until("the service", lambda: client.get(f"{addresses.url}/orders/").status_code == 200)
    with SteadyCaller(f"{addresses.url}/orders/") as caller:
        caller.wait_for_answers(100)
        running.signal(signal.SIGHUP)
        running.wait_for_output("reloaded")
        caller.wait_for_answers(100)
        envoys = running.envoys()
        running.signal(signal.SIGTERM)
        assert running.wait_for_exit() == 0
    assert caller.failed == []
    assert all(has_exited(pid) for pid in envoys)
    assert list(running.tmp.iterdir()) == []


def test_a_killed_envoy_is_restarted_beside_its_registry(serve: Serve, addresses: GatewayAddresses) -> None:
    running, _ = serve()
    running.wait_for_output("adsum gateway listens")
    (first,) = running.envoys()
    os.kill(first, signal.SIGKILL)
    running.wait_for_output("Envoy serves again")
    (second,) = running.envoys()
    running.signal(signal.SIGKILL)
    running.process.wait()
    wait_until("Envoy's end", lambda: has_exited(second))


def test_a_gateway_that_cannot_serve_ends_the_node_and_reports_why(serve: Serve, addresses: GatewayAddresses) -> None:
    running, _ = serve('tls_cert = "/nonexistent.pem"\ntls_key = "/nonexistent.pem"\n')
    assert running.wait_for_exit() == 1
    assert "adsum: --tls-cert: /nonexistent.pem can't be read: No such file or directory\n" in running.output


def test_a_gateway_needs_the_xds_server_of_its_registry() -> None:
    with pytest.raises(Invalid, match="--xds"):
        ServeConfig(gateway="on", xds="off")
    with pytest.raises(Invalid, match="IP:PORT"):
        ServeConfig(gateway="here")


async def test_the_gateway_of_a_secure_node_follows_it_over_tls_with_credentials_of_its_own(
    serve: Serve, addresses: GatewayAddresses, upstream: UpstreamServer, tmp_path: Path
) -> None:
    running, url = serve("", "--secure", "--data", str(tmp_path / "data"))
    running.wait_for_output(f"adsum gateway listens on {addresses.url}")
    security = tmp_path / "data" / "security"
    operator = CredentialsFolder(security / "operator").read()
    assert operator.urls == (url.replace("http:", "https:"),)
    async with (
        Client(credentials=security / "operator", cache=False) as client,
        client.register("orders", upstream.port, address="127.0.0.1"),
    ):
        await asyncio.to_thread(wait_until, "the service", lambda: get(f"{addresses.url}/orders/").status_code == 200)
    own = CredentialsFolder(security / "gateway").read()
    assert (own.role, own.name.partition("@")[0]) == ("gateway", "gateway")
    for path in (security / "gateway").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert operator.certificate is not None, "gRPC clients on this host need one"


def test_a_gateway_beside_a_node_with_own_certificates_needs_one_of_its_own(serve: Serve, tmp_path: Path) -> None:
    chain, key = certificate(tmp_path, "own")
    files = ("--tls-cert", str(chain), "--tls-key", str(key), "--tls-client-ca", str(chain))
    running, _ = serve("", *files, "--data", str(tmp_path / "data"))
    assert running.wait_for_exit() != 0
    assert "xds-cert: must be given, with xds_key, in the table [gateway]" in running.output
