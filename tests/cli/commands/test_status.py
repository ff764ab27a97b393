"""`adsum status` shows how the node is protected, and when its certificates expire."""

from __future__ import annotations

import time

import pytest

from adsum import wire
from adsum.cli.commands import status as status_command
from tests.cli.conftest import Adsum
from tests.support.registry_daemon import RunningDaemon


def _lines(adsum: Adsum) -> list[str]:
    return [" ".join(line.split()) for line in adsum("status").out.splitlines()]


def _show(monkeypatch: pytest.MonkeyPatch, security: str, *certificates: wire.CertificateView) -> None:
    node = wire.NodeStatus(
        "n1", "0", True, "e", 1, "memory:", 0.0, 0.0, security=security, certificates=list(certificates)
    )
    monkeypatch.setattr(status_command, "run_with_client", lambda *_: (node, []))


def test_a_node_on_loopback_says_that_only_its_host_reaches_it(adsum: Adsum, registry: RunningDaemon) -> None:
    assert "security only this host reaches it" in _lines(adsum)


def test_an_insecure_node_says_that_whoever_reaches_it_may_change_everything(
    adsum: Adsum, monkeypatch: pytest.MonkeyPatch
) -> None:
    _show(monkeypatch, "insecure")
    assert "security INSECURE (--insecure): whoever reaches it may change everything" in _lines(adsum)


def test_certificates_are_shown_with_their_expiry(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    _show(
        monkeypatch,
        "secure",
        wire.CertificateView("node", now + 5 * 86_400.0 + 60.0, renews=True),
        wire.CertificateView("authority", now - 5.0),
    )
    lines = _lines(adsum)
    assert "security TLS and tokens" in lines
    (node,) = [line for line in lines if line.startswith("certificate node ")]
    assert node.startswith("certificate node expires in 5")
    assert node.endswith("renewed by itself")
    assert "certificate authority has expired" in lines


def test_a_node_of_an_earlier_version_says_nothing_about_it(adsum: Adsum, monkeypatch: pytest.MonkeyPatch) -> None:
    _show(monkeypatch, "")
    assert not [line for line in _lines(adsum) if line.startswith("security")]
