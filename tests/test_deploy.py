"""The files in deploy/: units, an image and a compose file, as far as they can be checked without running them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from adsum.certificates.host_addresses import IPV4_FILE, IPV6_FILE
from adsum.client.credentials.find import user_folder
from adsum.config.addresses import is_loopback
from adsum.config.run import RunConfig
from adsum.config.serve import ServeConfig
from adsum.core.catalog.documents import DocumentKind
from adsum.core.liveness.heartbeats import DEFAULT_DRAIN_WAIT
from tests.support.programs import need
from tests.support.registry_daemon import RunningDaemon

DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = sorted(each.name for each in DEPLOY.glob("*.service"))
OLDER = "Failed to parse service type, ignoring: notify-reload"
"""The warning of a systemd before 253."""


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_unit(name: str, tmp_path: Path) -> None:
    analyze, unit = need("systemd"), tmp_path / name
    program = Path(sys.executable).with_name("adsum")
    unit.write_text((DEPLOY / name).read_text().replace("/opt/adsum/bin/adsum", str(program)))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if name in line and OLDER not in line] == []


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_signals_only_the_main_process(name: str) -> None:
    assert "\nKillMode=mixed\n" in (DEPLOY / name).read_text()


def test_stop_timeouts_cover_a_drain_and_the_end_of_the_program() -> None:
    run = RunConfig()
    needed = max(DEFAULT_DRAIN_WAIT, run.drain_timeout) + run.stop_timeout
    found = re.search(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "example.service").read_text(), re.MULTILINE)
    assert found is not None
    assert int(found[1]) > needed
    image = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["x-image"]
    assert int(image["stop_grace_period"].removesuffix("s")) > needed


def test_exit_code_143_is_a_success_for_systemd() -> None:
    assert "\nSuccessExitStatus=143\n" in (DEPLOY / "example.service").read_text()


def test_the_compose_file_publishes_only_the_gateway_and_on_loopback() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert {name: each.get("ports") for name, each in services.items() if "ports" in each} == {
        "gateway": ["127.0.0.1:8080:8080"]
    }
    for each in services.values():
        assert each["build"]["dockerfile"] == "deploy/Containerfile"


def _instructions() -> list[str]:
    return (DEPLOY / "Containerfile").read_text().splitlines()


def test_the_image_runs_as_an_unprivileged_user() -> None:
    assert "USER 10001" in _instructions()
    assert "VOLUME /data" in _instructions()


def test_the_image_listens_on_a_network_only_with_tls_and_tokens() -> None:
    (command,) = [line.removeprefix("CMD ") for line in _instructions() if line.startswith("CMD ")]
    words = json.loads(command)
    assert words[0] == "serve"
    assert "--secure" in words
    assert not [line for line in _instructions() if line.startswith("ENV") and "ADSUM" in line]
    config = ServeConfig(secure=True, store="memory:", listen=words[words.index("--listen") + 1])
    assert (config.security, is_loopback(config.listen)) == ("secure", False)


def _services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


def test_the_registry_of_the_compose_file_is_as_the_image_starts_it() -> None:
    registry = _services()["registry"]
    assert "command" not in registry
    assert registry["hostname"] in registry["environment"]["ADSUM_ADVERTISE"]
    assert "ADSUM_INSECURE" not in registry["environment"]


def test_the_health_check_uses_tls_and_no_secret() -> None:
    program = _services()["registry"]["healthcheck"]["test"][-1]
    compile(program, "healthcheck", "exec")
    assert "authority.pem" in program
    assert "https://127.0.0.1:23786/readyz" in program
    assert not re.search("token|key|CERT_NONE|unverified", program)


def test_each_container_of_the_compose_file_gets_only_the_invite_of_its_role() -> None:
    services = _services()
    assert services["orders"]["volumes"] == ["client-invite:/invites/client:ro"]
    assert services["gateway"]["volumes"] == ["gateway-invite:/invites/gateway:ro"]
    script = services["invites"]["command"][0]
    assert "umask 077" in script
    for role in ("client", "gateway"):
        assert f"adsum token invite --for {role} > /invites/{role}/line" in script
    for name, role in (("orders", "client"), ("gateway", "gateway")):
        assert f"adsum join /invites/{role}/line" in services[name]["command"][0]
        assert services[name]["depends_on"] == {"invites": {"condition": "service_completed_successfully"}}
    assert services["invites"]["restart"] == "no"


def test_volumes_of_the_compose_file_belong_to_the_user_of_the_image() -> None:
    """A new volume gets the owner of the folder in the image."""
    made = next(line for line in _instructions() if "install --directory" in line)
    for service in _services().values():
        for volume in service.get("volumes", ()):
            assert volume.split(":")[1] in made.split()


@pytest.mark.parametrize("name", ["invites", "orders", "gateway"])
def test_the_scripts_of_the_compose_file_are_valid(name: str) -> None:
    service = _services()[name]
    assert service["entrypoint"] == ["sh", "-euc"]
    subprocess.run(["sh", "-n", "-euc", service["command"][0]], check=True)


def test_the_registry_unit_stays_on_loopback_and_keeps_its_secrets_in_its_state_folder() -> None:
    text = (DEPLOY / "adsum.service").read_text()
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    words = start.split()
    assert not {"--secure", "--insecure", "--listen"} & {*words}
    store = words[words.index("--store") + 1]
    folder = ServeConfig(secure=True, store=store).data_folder(store)
    (state,) = re.findall(r"^StateDirectory=(.*)$", text, re.MULTILINE)
    assert folder == Path("/var/lib") / state
    assert "StateDirectoryMode=0700" in text
    written = "\n".join(
        line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ") and "/" not in line
    )
    assert ServeConfig(**tomllib.loads(written)["serve"], store=store).security == "secure"


@pytest.mark.parametrize("name", ["adsum-gateway.service", "example.service"])
def test_a_unit_finds_credentials_where_its_comment_says_to_join(name: str) -> None:
    text = (DEPLOY / name).read_text()
    (folder,) = re.findall(r"adsum join --folder (\S+)", text)
    (home,) = re.findall(r"XDG_CONFIG_HOME=(\S+)", text)
    (state,) = re.findall(r"^StateDirectory=(\S+)$", text, re.MULTILINE)
    assert user_folder({"XDG_CONFIG_HOME": home}) == Path(folder)
    assert Path(home) == Path("/var/lib") / state


@pytest.fixture
def secure_node(tmp_path: Path) -> Iterator[RunningDaemon]:
    """A secure registry whose data folder is where the image has it, below `tmp_path` instead of /data."""
    running = RunningDaemon(
        ServeConfig(
            listen="127.0.0.1:0", xds="off", store="memory:", node="n1", data=str(tmp_path / "adsum"), secure=True
        )
    )
    yield running
    running.stop()


def test_the_health_check_passes_on_a_secure_registry_and_fails_on_another_one(
    secure_node: RunningDaemon, tmp_path: Path
) -> None:
    program = _services()["registry"]["healthcheck"]["test"][-1]
    program = program.replace("/data/", f"{tmp_path}/").replace("https://127.0.0.1:23786", secure_node.url)
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    secure_node.stop()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_the_scripts_of_the_compose_file_join_and_register(secure_node: RunningDaemon, tmp_path: Path) -> None:
    services, port = _services(), _free_port()
    programs = Path(sys.executable).parent

    def start(name: str) -> subprocess.Popen[bytes]:
        home = tmp_path / name
        # Root would use a folder of the system if this one were missing.
        (home / ".config" / "adsum" / "registry").mkdir(parents=True, exist_ok=True)
        script = services[name]["command"][0].replace("/invites", str(tmp_path / "invites")).replace("8000", str(port))
        data = tmp_path if name == "invites" else home
        environment = {"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}", "XDG_DATA_HOME": str(data)}
        return subprocess.Popen([*services[name]["entrypoint"], script], env=environment, stderr=subprocess.PIPE)

    for role in ("client", "gateway"):
        (tmp_path / "invites" / role).mkdir(parents=True)
    invites = start("invites")
    _, log = invites.communicate(timeout=60.0)
    assert invites.returncode == 0, log
    for role in ("client", "gateway"):
        assert (tmp_path / "invites" / role / "line").stat().st_mode & 0o777 == 0o600
    for _ in range(2):  # The second time the container has joined already.
        orders = start("orders")
        try:
            deadline = time.monotonic() + 60.0
            while not secure_node.registry.snapshot.instance_count:
                assert time.monotonic() < deadline
                assert orders.poll() is None, orders.stderr and orders.stderr.read()
                time.sleep(0.05)
        finally:
            orders.terminate()
            orders.communicate(timeout=60.0)
        assert secure_node.registry.snapshot.instance_count == 0
    names = secure_node.registry.snapshot.documents.by_kind[DocumentKind.TOKEN]
    assert len(names) == 3, "the admin token, that of the node, and one of the container"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_node_finds_its_addresses_in_the_files_that_the_unit_leaves_visible() -> None:
    assert "ProcSubset=pid" in (DEPLOY / "adsum.service").read_text(), "only folders of processes are there"
    assert {path.parts[:3] for path in (IPV4_FILE, IPV6_FILE)} == {("/", "proc", "self")}
