"""A gateway with a real Envoy on a host that has joined a registry with TLS and client certificates."""

from __future__ import annotations

import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from adsum.certificates.authority import LIFETIMES
from adsum.client.credentials.folder import CredentialsFolder
from adsum.core.access.tokens import TokenRole
from adsum.envoy.metrics.monitor import PROBLEM_BODIES, READY_BODY
from adsum.envoy.registry_health.registry_contact import ContactProblem
from tests.envoy.ads_server import AdsServer
from tests.envoy.gateway_command import (
    READY,
    GatewayAddresses,
    GatewayCommand,
    Start,
    SteadyCaller,
    UpstreamServer,
    get,
    wait_until,
)
from tests.envoy.secure_registry import SecureRegistry

GATEWAY_LIFE = LIFETIMES[TokenRole.GATEWAY]
DAY = 86_400.0
FAILED_HANDSHAKES = 'envoy_cluster_ssl_fail_verify_error{envoy_cluster_name="adsum_registry"}'
MAX_ATTEMPTS_PER_SECOND = 10
"""The streams of resources, loads and metrics each try again with delays of up to a second and more."""


@pytest.fixture
def registry() -> SecureRegistry:
    return SecureRegistry()


@pytest.fixture
def ads(port: Callable[[], int], upstream: UpstreamServer, registry: SecureRegistry) -> Iterator[AdsServer]:
    running = AdsServer(port(), upstream.port, registry)
    yield running
    running.close()


@pytest.fixture
def folder(registry: SecureRegistry, ads: AdsServer, tmp_path: Path) -> CredentialsFolder:
    """The credentials of this host."""
    return registry.join(tmp_path / "joined", xds=ads.address)


@pytest.fixture
def start_joined(start: Start, folder: CredentialsFolder) -> Start:
    def start_joined(*args: str) -> GatewayCommand:
        return start("--xds", "", *args, ADSUM_CREDENTIALS=str(folder.path))

    return start_joined


def serial_number(folder: CredentialsFolder) -> int:
    """Returns the serial number of the certificate in a credentials folder."""
    from cryptography import x509

    return x509.load_pem_x509_certificate((folder.path / "client.pem").read_bytes()).serial_number


def test_a_gateway_on_a_joined_host_needs_no_setting(
    start_joined: Start, addresses: GatewayAddresses, ads: AdsServer, folder: CredentialsFolder
) -> None:
    gateway = start_joined()
    gateway.wait_for_output(READY)
    assert get(addresses.url).text == "ok"
    assert set(ads.client_serials) == {serial_number(folder)}
    metrics = get(f"{addresses.monitor_url}/metrics").text
    expiries = [line for line in metrics.splitlines() if "expiration_unix_time_seconds" in line]
    left = [float(line.rpartition(" ")[2]) - time.time() for line in expiries if line[0] != "#"]
    assert any(GATEWAY_LIFE - DAY < seconds < GATEWAY_LIFE for seconds in left), metrics


def test_the_files_of_envoy_are_private_and_its_bootstrap_has_no_secret(
    start_joined: Start, folder: CredentialsFolder
) -> None:
    gateway = start_joined()
    gateway.wait_for_output(READY)
    (bootstrap,) = gateway.tmp.rglob("bootstrap.json")
    folders = [bootstrap.parent, *[path for path in bootstrap.parent.parent.iterdir() if path.is_dir()]]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    files = [path for path in bootstrap.parent.iterdir() if path.is_file()]
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {
        path.name: "0o600" for path in files
    }
    token = folder.read().token
    for file in (bootstrap, *bootstrap.parent.glob("*.json")):
        assert "PRIVATE KEY" not in file.read_text()
        assert token not in file.read_text()
    command_lines = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in gateway.envoys())
    assert token.encode() not in command_lines + Path(f"/proc/{gateway.process.pid}/environ").read_bytes()
    assert token not in gateway.output


def test_a_renewed_certificate_is_used_without_a_restart_or_a_new_stream(
    start_joined: Start,
    addresses: GatewayAddresses,
    ads: AdsServer,
    registry: SecureRegistry,
    folder: CredentialsFolder,
) -> None:
    gateway = start_joined()
    gateway.wait_for_output(READY)
    envoys, first = gateway.envoys(), serial_number(folder)
    with SteadyCaller(addresses.url) as caller:
        registry.renew(folder)
        gateway.wait_for_output("the certificate for the registry: the new one is used from now on")
        assert set(ads.client_serials) == {first}, "the stream goes on"
        assert len(ads.streams) == 1
        ads.close()
        ads.open()
        wait_until("the new certificate", lambda: serial_number(folder) in ads.client_serials, lambda: gateway.output)
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert gateway.envoys() == envoys


@pytest.mark.long
def test_a_revoked_gateway_keeps_its_configuration_and_says_why(
    start_joined: Start,
    addresses: GatewayAddresses,
    ads: AdsServer,
    registry: SecureRegistry,
    folder: CredentialsFolder,
) -> None:
    gateway = start_joined()
    gateway.wait_for_output(READY)
    with SteadyCaller(addresses.url) as caller:
        ads.refuse(grpc.StatusCode.UNAUTHENTICATED, "the token edge was revoked")
        ready = f"{addresses.monitor_url}/readyz"
        refused = PROBLEM_BODIES[ContactProblem.REFUSED]
        wait_until("the reason at /readyz", lambda: get(ready).text == refused, lambda: gateway.output)
        gateway.wait_for_output("the registry rejects this gateway: the token edge was revoked: get a new line")
        # The host joins anew. The registry accepts its new token only.
        ads.refusal = ""
        registry.join(folder.path, xds=ads.address, token_id="2" * 16)
        wait_until("the new certificate", lambda: serial_number(folder) in ads.client_serials, lambda: gateway.output)
        wait_until("the contact", lambda: get(ready).text == READY_BODY, lambda: gateway.output)
        caller.wait_for_answers(50)
    assert caller.failed == []


def test_traffic_goes_on_while_all_certificates_are_expired_and_contact_comes_back_without_a_restart(
    start_joined: Start,
    addresses: GatewayAddresses,
    ads: AdsServer,
    registry: SecureRegistry,
    folder: CredentialsFolder,
) -> None:
    gateway = start_joined()
    gateway.wait_for_output(READY)
    envoys = gateway.envoys()
    ready = f"{addresses.monitor_url}/readyz"
    with SteadyCaller(addresses.url) as caller:
        registry.expire_server()
        registry.join(folder.path, xds=ads.address, age=GATEWAY_LIFE + DAY)
        gateway.wait_for_output("the certificate for the registry: the new one is used from now on")
        ads.close()
        ads.open()
        expired = PROBLEM_BODIES[ContactProblem.EXPIRED]
        wait_until("the reason at /readyz", lambda: get(ready).text == expired, lambda: gateway.output)
        gateway.wait_for_output("this gateway's certificate for the registry has expired: `adsum join --renew`")
        registry.renew_server()
        registry.renew(folder)
        wait_until("the contact", lambda: get(ready).text == READY_BODY, lambda: gateway.output)
        assert serial_number(folder) in ads.client_serials
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert gateway.envoys() == envoys


def test_a_gateway_that_starts_with_expired_certificates_serves_the_last_good_config_until_they_are_valid(
    start_joined: Start,
    addresses: GatewayAddresses,
    ads: AdsServer,
    registry: SecureRegistry,
    folder: CredentialsFolder,
    tmp_path: Path,
) -> None:
    first = start_joined()
    first.wait_for_output(READY)
    wait_until("the configuration on disk", lambda: list((tmp_path / "cache").rglob("*.json")))
    first.signal(signal.SIGTERM)
    assert first.wait_for_exit() == 0
    registry.expire_server()
    registry.join(folder.path, xds=ads.address, age=GATEWAY_LIFE + DAY)
    second = start_joined("--drain-timeout", "1")
    second.wait_for_output("no registry answers; the gateway serves the last good configuration")
    second.wait_for_output("the certificate for the registry expired at")
    with SteadyCaller(addresses.url) as caller:
        caller.wait_for_answers(20)
        registry.renew_server()
        registry.renew(folder)
        second.wait_for_output("reloaded: a new Envoy serves")
        caller.wait_for_answers(50)
    assert caller.failed == []
    assert caller.refused == 0
    assert serial_number(folder) in ads.client_serials


def test_attempts_to_reach_a_registry_with_an_expired_certificate_are_paced(
    start_joined: Start, addresses: GatewayAddresses, ads: AdsServer, registry: SecureRegistry
) -> None:
    gateway = start_joined()
    gateway.wait_for_output(READY)
    registry.expire_server()
    ads.close()
    ads.open()

    def attempts() -> int:
        lines = get(f"{addresses.monitor_url}/metrics").text.splitlines()
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(FAILED_HANDSHAKES))

    wait_until("an attempt", attempts, lambda: gateway.output)
    first, began = attempts(), time.monotonic()
    wait_until("20 further attempts", lambda: attempts() >= first + 20, lambda: gateway.output)
    assert 20 / (time.monotonic() - began) < MAX_ATTEMPTS_PER_SECOND


def test_an_expired_certificate_of_the_registry_is_named_in_the_log(
    start_joined: Start, addresses: GatewayAddresses, ads: AdsServer, registry: SecureRegistry
) -> None:
    registry.expire_server()
    gateway = start_joined()
    gateway.wait_for_output("its certificate has expired")
    registry.renew_server()
    gateway.wait_for_output(READY)
    assert get(addresses.url).text == "ok"


def test_a_registry_of_another_authority_is_not_followed(
    start_joined: Start, ads: AdsServer, folder: CredentialsFolder, registry: SecureRegistry
) -> None:
    folder.replace_authority(SecureRegistry().authority.certificate_pem().decode())
    gateway = start_joined()
    gateway.wait_for_output("another authority")
    assert ads.profiles == []
    folder.replace_authority(registry.authority.certificate_pem().decode())
    gateway.wait_for_output(READY)


def test_a_registry_whose_certificate_has_another_name_is_not_followed(
    start: Start, port: Callable[[], int], upstream: UpstreamServer, tmp_path: Path
) -> None:
    other = SecureRegistry(names=("reg-1", "10.9.8.7"))
    server = AdsServer(port(), upstream.port, other)
    folder = other.join(tmp_path / "other", xds=server.address)
    gateway = start("--xds", "", ADSUM_CREDENTIALS=str(folder.path))
    gateway.wait_for_output("its certificate is not for 127.0.0.1")
    server.close()
    assert server.profiles == []


def test_a_registry_at_an_ipv6_address_is_followed_however_that_is_written(
    start: Start, addresses: GatewayAddresses, port: Callable[[], int], upstream: UpstreamServer, tmp_path: Path
) -> None:
    registry = SecureRegistry()
    server = AdsServer(port(), upstream.port, registry, "::1")
    folder = registry.join(tmp_path / "other", xds=f"[0:0::0001]:{server.port}")
    gateway = start("--xds", "", ADSUM_CREDENTIALS=str(folder.path))
    gateway.wait_for_output(READY)
    assert get(addresses.url).text == "ok"
    server.close()


def test_own_certificates_are_named_by_settings(
    start: Start, addresses: GatewayAddresses, ads: AdsServer, folder: CredentialsFolder
) -> None:
    own = folder.read()
    files = ["--xds-authority", str(folder.path / "authority.pem")]
    files += ["--xds-cert", str(own.certificate), "--xds-key", str(own.key)]
    gateway = start("--xds", f"localhost:{ads.port}", *files)
    gateway.wait_for_output(READY)
    assert get(addresses.url).text == "ok"
    assert set(ads.client_serials) == {serial_number(folder)}


def test_a_key_of_another_certificate_stops_the_start_with_the_names_of_the_settings(
    start: Start, folder: CredentialsFolder, registry: SecureRegistry, ads: AdsServer, tmp_path: Path
) -> None:
    other = registry.join(tmp_path / "other", xds=ads.address)
    files = ("--xds-authority", str(folder.path / "authority.pem"), "--xds-cert", str(folder.path / "client.pem"))
    gateway = start(*files, "--xds-key", str(other.path / "client.key"))
    assert gateway.wait_for_exit() != 0
    assert "--xds-key: does not belong to the certificate" in gateway.output


def test_without_credentials_a_registry_with_tls_is_not_reached(start: Start, ads: AdsServer) -> None:
    gateway = start()
    gateway.wait_for_output("no registry answers")
    assert ads.profiles == []


def test_a_registry_on_loopback_is_followed_in_plain_text_on_a_joined_host_too(
    start: Start,
    addresses: GatewayAddresses,
    port: Callable[[], int],
    upstream: UpstreamServer,
    folder: CredentialsFolder,
) -> None:
    plain = AdsServer(port(), upstream.port)
    gateway = start("--xds", plain.address, ADSUM_CREDENTIALS=str(folder.path))
    gateway.wait_for_output(READY)
    plain.close()
    assert plain.client_serials == []
