from __future__ import annotations

import errno
import os
import ssl

import pytest

from adsum.core.address_policy import AddressPolicy
from adsum.core.errors import ProbeUnavailable
from adsum.core.model import Check, CheckKind, Instance, Result
from adsum.probes import load_probe
from adsum.probes.connection import describe_error, one_line, probe_outcome, probe_target


def instance_with(scheme: str) -> Instance:
    return Instance("orders", "a", "10.0.0.1", 8443, scheme)


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused by a:1"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "connection closed by a:1"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no route to a:1"),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), "no connection to a:1: Connection timed out"),
        (ssl.SSLError(1, "[SSL] alert"), "TLS failed with a:1: [SSL] alert"),
    ],
)
def test_connection_errors_are_described(error: OSError, description: str) -> None:
    assert describe_error(error, "a:1") == description


@pytest.mark.parametrize("kind", [CheckKind.HTTP, CheckKind.TCP])
async def test_a_shortage_of_local_resources_is_no_outcome(kind: CheckKind, monkeypatch: pytest.MonkeyPatch) -> None:
    async def short(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("adsum.probes.connection._connect", short)
    with pytest.raises(ProbeUnavailable, match="Too many open files"):
        await load_probe(kind, AddressPolicy()).probe(instance_with("http"), Check("up", kind))


async def test_a_bug_in_a_probe_is_an_outcome() -> None:
    async def verdict() -> tuple[Result, str]:
        raise RuntimeError("oops")

    outcome = await probe_outcome(Check("up", CheckKind.TCP), verdict)
    assert (outcome.result, outcome.note) == (Result.FAIL, "the probe itself failed: RuntimeError('oops')")


@pytest.mark.parametrize(
    ("scheme", "port", "tls", "used"),
    [
        ("http", None, False, False),
        ("http", None, True, True),
        ("https", None, False, True),
        ("grpcs", 8443, False, True),
        ("h2", None, False, True),
        ("h2c", None, False, False),
        ("https", 9000, False, False),
        ("https", 9000, True, True),
    ],
)
def test_tls_is_used_if_the_check_or_the_scheme_of_the_port_declares_it(
    scheme: str, port: int | None, tls: bool, used: bool
) -> None:
    assert probe_target(instance_with(scheme), Check("up", CheckKind.HTTP, port=port, tls=tls)).tls is used


def test_a_note_is_one_line_of_printable_text_with_a_bound() -> None:
    assert one_line("  a\r\n\tb\x00c\u2028d  ", 100) == "a b c d"
    assert one_line("x" * 1000, 10) == "x" * 9 + "…"
