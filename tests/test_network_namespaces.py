"""The network of the scenarios with several hosts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.network_namespaces import NetworkHost, PrivateNetwork, network


@pytest.fixture
def net(tmp_path: Path) -> Iterator[PrivateNetwork]:
    with network(tmp_path) as opened:
        yield opened


def _run(host: NetworkHost, script: str) -> tuple[int, str]:
    done = subprocess.run(host.command("sh", "-c", script), capture_output=True, text=True, timeout=20.0, check=False)
    return done.returncode, done.stdout.strip()


FETCH = "python3 -c \"import socket; print(socket.create_connection(('{}', 80), 2).getsockname()[0])\""
LISTEN = "import socket; s = socket.create_server(('0.0.0.0', 80)); print('up', flush=True); s.accept(); s.accept()"


def test_hosts_have_names_and_addresses_and_reach_one_another(net: PrivateNetwork) -> None:
    first, second = net.add_host("web1"), net.add_host("web2")
    assert (first.address, second.address) == ("10.77.0.1", "10.77.0.2")
    assert _run(second, "hostname") == (0, "web2")
    with subprocess.Popen(first.command("python3", "-c", LISTEN), stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"
        assert _run(second, FETCH.format("web1")) == (0, "10.77.0.2")
        assert _run(second, FETCH.format("127.0.0.1"))[0] != 0, "each host has a loopback of its own"
        net.cut(second)
        assert _run(second, FETCH.format("10.77.0.1"))[0] != 0
        net.connect(second)
        assert _run(second, FETCH.format("10.77.0.1")) == (0, "10.77.0.2")


def test_the_network_ends_with_its_processes(tmp_path: Path) -> None:
    with network(tmp_path) as net:
        host = net.add_host("web1")
    assert _run(host, "true")[0] != 0
