"""Envoy's bootstrap, validated by Envoy itself."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adsum.client.credentials.xds import XdsCredentials, folder_credentials
from adsum.core.errors import Invalid
from adsum.core.validation import service_name
from adsum.envoy.certificates.gateway_secrets import read_secrets
from adsum.envoy.metrics.stats import REGISTRY_CLUSTER
from adsum.envoy.plan import GatewayPlan, SocketAddress, registry_addresses
from adsum.envoy.preflight import CannotServe, check_plan
from adsum.envoy.process.binary import find_envoy
from adsum.envoy.process.bootstrap import bootstrap
from adsum.gateway.profile import GatewayProfile
from tests.envoy.plans import plan_for
from tests.envoy.secure_registry import SecureRegistry
from tests.gateway.real_envoy import free_port
from tests.support.programs import need

PLAN = plan_for(("127.0.0.1", 23787))


def envoy_problem(config: dict[str, Any], folder: Path) -> str:
    """Returns why Envoy rejects the configuration; "" if it does not."""
    path = folder / "bootstrap.json"
    path.write_text(json.dumps(config))
    argv = [
        str(need("envoy")),
        "--mode",
        "validate",
        "-c",
        str(path),
        "-l",
        "warning",
        "--reject-unknown-dynamic-fields",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode == 0 else done.stdout + done.stderr or "refused"


def registry(config: dict[str, Any]) -> dict[str, Any]:
    cluster: dict[str, Any] = next(
        candidate for candidate in config["static_resources"]["clusters"] if candidate["name"] == "adsum_registry"
    )
    return cluster


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, monitor=None),
        replace(PLAN, registry_nodes=(("10.0.0.1", 1), ("::1", 2))),
        replace(PLAN, registry_nodes=(("reg-1.example", 1), ("reg-2.example", 2), ("10.0.0.3", 3))),
        replace(
            PLAN,
            profile=GatewayProfile(("[::1]:8080", "127.0.0.1:81"), zone="a", default_routes=False),
            monitor=("::1", 9),
        ),
    ],
    ids=["usual", "unmonitored", "nodes", "named nodes", "profile"],
)
def test_envoy_accepts_the_bootstrap(plan: GatewayPlan, tmp_path: Path) -> None:
    assert envoy_problem(bootstrap(plan, tmp_path / "admin.sock"), tmp_path) == ""


def test_the_node_has_the_profile_and_the_zone(tmp_path: Path) -> None:
    profile = GatewayProfile(("127.0.0.1:81",), zone="a", access_log="off")
    node = bootstrap(replace(PLAN, node="n", profile=profile), tmp_path / "s")["node"]
    assert (node["id"], node["locality"]) == ("n", {"zone": "a"})
    assert GatewayProfile.from_metadata(node["metadata"]) == profile


def test_no_service_can_have_the_name_of_a_bootstrap_cluster(tmp_path: Path) -> None:
    clusters = bootstrap(PLAN, tmp_path / "s")["static_resources"]["clusters"]
    assert len(clusters) > 1
    for cluster in clusters:
        with pytest.raises(Invalid):
            service_name("name", cluster["name"])


def test_the_admin_interface_is_on_a_private_socket_only(tmp_path: Path) -> None:
    config = bootstrap(PLAN, tmp_path / "s")
    assert config["admin"]["address"] == {"pipe": {"path": str(tmp_path / "s"), "mode": 0o600}}
    assert "adsum_admin" not in json.dumps(bootstrap(replace(PLAN, monitor=None), tmp_path / "s"))


def test_host_names_of_registry_nodes_are_resolved_and_ip_addresses_are_not(tmp_path: Path) -> None:
    assert registry(bootstrap(PLAN, tmp_path / "s"))["type"] == "STATIC"
    named = replace(PLAN, registry_nodes=(("10.0.0.1", 1), ("reg", 2)))
    assert registry(bootstrap(named, tmp_path / "s"))["type"] == "STRICT_DNS"


@pytest.mark.parametrize(
    ("xds", "url", "addresses"),
    [
        ("", "http://127.0.0.1:23786", [("127.0.0.1", 23787)]),
        ("", "http://a:1,https://b:2", [("a", 23787), ("b", 23787)]),
        ("", "http://a:1,http://a:2", [("a", 23787)]),
        ("", "http://[::1]:1", [("::1", 23787)]),
        ("c:5, [::1]:6", "http://a:1", [("c", 5), ("::1", 6)]),
    ],
)
def test_the_registry_is_at_the_given_address_else_at_its_default_port(
    xds: str, url: str, addresses: list[SocketAddress]
) -> None:
    assert list(registry_addresses(xds, url)) == addresses


def test_a_gateway_is_named_after_its_host_and_port() -> None:
    assert plan_for(listen=("127.0.0.1:81",)).node.endswith("-81")
    assert plan_for(node="edge").node == "edge"


@pytest.mark.needs("envoy")
def test_the_envoy_beside_this_python_is_found() -> None:
    assert find_envoy().version.split(".")[0] == "1"


@pytest.mark.parametrize(("files", "bound"), [(256, 85), (1_024, 469), (200_000, 50_000), (None, 50_000)])
def test_open_files_limit_the_number_of_connections(files: int | None, bound: int) -> None:
    plan = replace(
        plan_for(("127.0.0.1", 23787), concurrency=2, listen=["127.0.0.1:8080", "127.0.0.1:8081"]), max_open_files=files
    )
    (monitor,) = bootstrap(plan, Path("admin"))["overload_manager"]["resource_monitors"]
    assert monitor["typed_config"]["max_active_downstream_connections"] == bound


def test_too_few_open_files_are_reported_with_the_number_needed() -> None:
    plan = replace(
        plan_for(("127.0.0.1", 23787), concurrency=2, listen=[f"127.0.0.1:{free_port()}"], monitor="off"),
        max_open_files=83,
    )
    with pytest.raises(CannotServe, match="83 files here, and this gateway needs 84"):
        check_plan(plan)
    check_plan(replace(plan, max_open_files=84))


def test_responsive_registry_nodes_are_tried_first(tmp_path: Path) -> None:
    nodes = [("10.0.0.1", 23787), ("10.0.0.2", 23787), ("10.0.0.3", 23787)]

    def tried(*responsive: SocketAddress) -> list[list[str]]:
        config = bootstrap(plan_for(*nodes), tmp_path / "s", responsive)
        endpoints = registry(config)["load_assignment"]["endpoints"]
        assert [group["priority"] for group in endpoints] == list(range(len(endpoints)))
        return [
            [node["endpoint"]["address"]["socket_address"]["address"] for node in group["lb_endpoints"]]
            for group in endpoints
        ]

    assert tried(nodes[1]) == [["10.0.0.2"], ["10.0.0.1", "10.0.0.3"]]
    assert tried() == tried(*nodes) == [["10.0.0.1", "10.0.0.2", "10.0.0.3"]]
    assert envoy_problem(bootstrap(plan_for(*nodes), tmp_path / "admin.sock", nodes[1:2]), tmp_path) == ""


@pytest.fixture
def tls_plan(tmp_path: Path) -> GatewayPlan:
    """The plan of a gateway that follows two nodes over TLS."""
    files = XdsCredentials(tmp_path / "authority.pem", tmp_path / "client.pem", tmp_path / "client.key")
    return plan_for(("10.0.0.1", 1), ("reg.example", 2), ("10.0.0.1", 3), xds_credentials=files)


def test_each_node_must_have_a_certificate_for_its_own_name_or_address(tls_plan: GatewayPlan, tmp_path: Path) -> None:
    cluster = registry(bootstrap(tls_plan, tmp_path / "admin.sock"))
    sockets = {entry["name"]: entry for entry in cluster["transport_socket_matches"]}
    assert set(sockets) == {"10.0.0.1", "reg.example"}
    contexts = {host: entry["transport_socket"]["typed_config"] for host, entry in sockets.items()}
    names = {
        host: context["common_tls_context"]["combined_validation_context"]["default_validation_context"]
        for host, context in contexts.items()
    }
    assert names["10.0.0.1"] == {
        "match_typed_subject_alt_names": [{"san_type": "IP_ADDRESS", "matcher": {"exact": "10.0.0.1"}}]
    }
    assert names["reg.example"]["match_typed_subject_alt_names"][0]["san_type"] == "DNS"
    assert [context.get("sni") for context in contexts.values()] == [None, "reg.example"]
    for endpoint in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]:
        host = endpoint["endpoint"]["address"]["socket_address"]["address"]
        assert endpoint["metadata"]["filter_metadata"]["envoy.transport_socket_match"] == sockets[host]["match"]
    assert cluster["transport_socket"]["name"] == "envoy.transport_sockets.tls", "never in plain text"


def test_all_streams_to_the_registry_use_that_cluster(tls_plan: GatewayPlan, tmp_path: Path) -> None:
    config = bootstrap(tls_plan, tmp_path / "admin.sock")
    text = json.dumps({key: value for key, value in config.items() if key != "static_resources"})
    assert text.count('"cluster_name"') == text.count(f'"cluster_name": "{REGISTRY_CLUSTER}"') == 3


def test_a_gateway_that_presents_nothing_still_verifies_the_registry(tls_plan: GatewayPlan, tmp_path: Path) -> None:
    plan = replace(tls_plan, xds_credentials=XdsCredentials(tmp_path / "authority.pem"))
    context = registry(bootstrap(plan, tmp_path / "s"))["transport_socket"]["typed_config"]["common_tls_context"]
    assert "combined_validation_context" in context
    assert "tls_certificate_sds_secret_configs" not in context


@pytest.mark.needs("envoy")
def test_envoy_accepts_the_bootstrap_with_tls(tls_plan: GatewayPlan, tmp_path: Path) -> None:
    folder = SecureRegistry().join(tmp_path / "joined", xds="10.0.0.1:1")
    plan = replace(tls_plan, xds_credentials=folder_credentials(folder.path))
    read_secrets(plan, tmp_path).install(tmp_path)
    assert envoy_problem(bootstrap(plan, tmp_path / "admin.sock"), tmp_path) == ""
