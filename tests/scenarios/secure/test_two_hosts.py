"""A secure registry over etcd on a network: nodes and clients join with one copied line each."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from tests.scenarios.processes import ScenarioProcess, ScenarioSandbox, wait_until
from tests.scenarios.secure.secure_hosts import PORT, SecureHosts
from tests.support.network_namespaces import PrivateNetwork

PROPAGATION: float = 1.0
"""Seconds within which a token counts, or no longer counts, at every node."""

SERVER: str = f"exec {sys.executable} -m http.server $PORT"


def _module(name: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"tests.scenarios.secure.{name}")


async def _cluster(sandbox: ScenarioSandbox, network: PrivateNetwork) -> SecureHosts:
    """A registry of two nodes on two hosts, and a third host that has joined as a client."""
    hosts = SecureHosts(sandbox, network, "n1", "n2", "web")
    await hosts.start_etcd()
    first, second, web = hosts.hosts
    await hosts.start_node(first)
    joined = await hosts.join(second, await hosts.invite(first, "--for", "node"))
    assert "this host has joined the registry" in joined.stderr
    await hosts.start_node(second)
    await hosts.wait_for_shares(first, 2)
    # The second node does not have the authority's key, and forwards the join.
    await hosts.join(web, await hosts.invite(second, "--for", "client"))
    return hosts


async def _drain_across_nodes(hosts: SecureHosts) -> None:
    first, second, web = hosts.hosts
    urls = [f"https://{host.address}:{PORT}" for host in (first, second)]
    for number in range(6):
        service = f"orders{number}"
        run = ("run", "--service", service, "--id", "o1", "--port", "0", "--", "sh", "-c", SERVER)
        instance = hosts.adsum(web, *run, ADSUM_URL=urls[number % 2])
        consumer = hosts.program(web, f"consumer-{service}", *_module("watching_client"), service, ADSUM_URL=urls[1])
        await consumer.wait_for_output("o1=passing (1)")
        consumer.send_signal(signal.SIGSTOP)
        drain = hosts.adsum(first, "drain", f"{service}/o1")
        other = hosts.program(web, f"other-{service}", *_module("watching_client"), service, ADSUM_URL=urls[0])
        await other.wait_for_output("o1=draining (0)")
        assert drain.process.poll() is None, "it waits for the consumer at the other node"
        consumer.send_signal(signal.SIGCONT)
        assert await drain.wait() == 0, drain.stderr
        assert f"{service}/o1 is draining; no cooperating consumer calls it any more" in drain.stderr
        assert "lost" not in drain.stderr
        assert "o1=draining (0)" in consumer.stdout
        for program in (consumer, other, instance):
            await program.stop()


def _times(prober: ScenarioProcess, text: str) -> list[float]:
    """Returns when the prober printed the text, for each node."""
    lines = [line.split(" ", 2) for line in prober.stdout.splitlines()]
    return [float(at) for at, _, found in lines if found == text]


async def _wait_for_both(prober: ScenarioProcess, *texts: str) -> None:
    """Returns once the prober has printed each text for both nodes."""
    await wait_until(
        lambda: all(len(_times(prober, text)) == 2 for text in texts), lambda: prober.stdout + prober.stderr
    )


async def _tokens_count_everywhere(hosts: SecureHosts) -> None:
    first, second, web = hosts.hosts
    token = web.home / "reader"
    urls = [f"https://{host.address}:{PORT}" for host in (first, second)]
    authority = str(web.home / ".config/adsum/registry/authority.pem")
    prober = hosts.program(web, "prober", *_module("token_prober"), authority, str(token), *urls)
    created = hosts.adsum(first, "token", "create", "reader", "--scope", "read:*", "--output", str(token))
    assert await created.wait() == 0, created.stderr
    made = token.stat().st_mtime
    await _wait_for_both(prober, "200", "stream 200")
    assert max(_times(prober, "200")) - made < PROPAGATION, prober.stdout
    revoked = await hosts.run(second, "token", "revoke", "reader")
    await _wait_for_both(prober, "401", "stream ended")
    refused, ended = _times(prober, "401"), _times(prober, "stream ended")
    assert max(refused + ended) - min(refused + ended) < PROPAGATION, f"{revoked.stderr}\n{prober.stdout}"
    prober.kill()


@pytest.mark.long
async def test_hosts_join_with_one_line_each_and_tokens_count_at_every_node(
    private_network: PrivateNetwork, sandbox: ScenarioSandbox
) -> None:
    hosts = await _cluster(sandbox, private_network)
    web = hosts.hosts[2]
    who = await hosts.run(web, "whoami")
    assert "read:* write:*" in who.stdout
    await _drain_across_nodes(hosts)
    await _tokens_count_everywhere(hosts)


@pytest.mark.long
async def test_a_node_with_another_authority_and_a_node_without_tls_are_refused(
    private_network: PrivateNetwork, sandbox: ScenarioSandbox
) -> None:
    hosts = SecureHosts(sandbox, private_network, "n1", "n2")
    await hosts.start_etcd()
    first, second = hosts.hosts
    start = ("serve", "--secure", "--listen", "0.0.0.0:23786", "--xds", "off", "--store", hosts.store)
    both = [hosts.adsum(host, *start) for host in (first, second)]
    await wait_until(lambda: any(node.process.poll() is not None for node in both))
    refused = both[0] if both[0].process.poll() is not None else both[1]
    winner = both[1] if refused is both[0] else both[0]
    await winner.wait_for_output("listens on")
    assert refused.process.returncode == 78, refused.stderr
    assert "adsum token invite --for node" in refused.stderr
    assert "adsum join" in refused.stderr
    loser, host = (first, second) if refused is both[0] else (second, first)
    assert sorted(file.name for file in (loser.home / ".local/share/adsum/security").iterdir()) == ["lock"]
    open_node = await hosts.run(loser, "serve", "--insecure", *start[2:], code=78)
    assert "--secure: must be given" in open_node.stderr
    url = f"https://{host.address}:{PORT}"
    stranger = await hosts.run(loser, "ls", code=69, ADSUM_URL=url)
    assert "an authority that this host does not trust: join the registry" in stranger.stderr
    authority = str(host.home / ".local/share/adsum/security/authority.pem")
    stranger = await hosts.run(loser, "ls", code=77, ADSUM_URL=url, ADSUM_AUTHORITY_FILE=authority)
    assert stranger.stdout == ""
    line = await hosts.invite(host, "--for", "node")
    await hosts.join(loser, line)
    again = await hosts.join(loser, line, "--name", "thief", code=77)
    assert "refuses the line" in again.stderr
    await hosts.start_node(loser, "--xds", "off")
    await asyncio.gather(*(hosts.wait_for_shares(one, 2) for one in hosts.hosts))
