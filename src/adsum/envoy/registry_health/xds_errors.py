"""Explains why a registry node does not answer over xDS: one clause about the node, and what to do. Pure."""

from __future__ import annotations

from typing import Final

from adsum.dialects.xds.settings import DEFAULT_XDS_PORT

NODE_ANSWER_TIMEOUT: Final = 3.0
"""Seconds that a node has to answer; a slower one counts as away."""

_NO_TLS: Final = (
    "does not speak TLS there: this gateway expects TLS, because its host has joined a registry, or by --xds-cert or "
    "--xds-authority"
)
_OTHER_AUTHORITY: Final = (
    "another authority signed its certificate than this gateway trusts: it belongs to another registry, or someone "
    "intercepts the connection; `adsum join` or --xds-authority says which authority to trust"
)
_PROBLEMS: Final = (
    ("certificate has expired", "its certificate has expired: `adsum init --renew` on that node mends it"),
    ("certificate is not yet valid", "its certificate is not valid yet: check the clocks of both hosts"),
    ("CERTIFICATE_VERIFY_FAILED", _OTHER_AUTHORITY),
    ("WRONG_VERSION_NUMBER", _NO_TLS),
    ("CERTIFICATE_EXPIRED", "it refuses this gateway's certificate, which has expired: `adsum join --renew`"),
)
"""Part of gRPC's text → the problem."""
_WRONG_NAME: Final = "Hostname Verification Check failed"
_CLOSED: Final = ("Socket closed", "Connection reset")


def answer_problem(address: str, details: str, *, is_timeout: bool, has_tls: bool) -> str:
    """Returns the problem of the node at `address`, HOST:PORT, as a sentence. `details` is the text of gRPC's error.

    `has_tls`: whether the gateway speaks TLS to it.
    """
    if is_timeout:
        return f"{address} does not answer within {NODE_ANSWER_TIMEOUT:g} s"
    if "Expected SETTINGS frame" in details:
        return (
            f"{address} does not speak xDS (it may be an HTTP/1 port); "
            f"a registry's xDS port is {DEFAULT_XDS_PORT} by default"
        )
    if _WRONG_NAME in details:
        host = address.rpartition(":")[0]
        return f"{address}: its certificate is not for {host}: use a name that it has, or add it there with --tls-name"
    problem = next((problem for part, problem in _PROBLEMS if part in details), "")
    if problem:
        return f"{address}: {problem}"
    # gRPC's text has several clauses; the last one is the most specific.
    reason = details.rpartition(": ")[2].strip("[]")
    if not any(text in details for text in _CLOSED):
        return f"{address}: {reason}"
    if has_tls:
        return (
            f"{address} closed the connection ({reason}); it may refuse this gateway's certificate, if that has "
            "expired or another authority signed it: `adsum join --renew`, or `adsum join` with a new line"
        )
    return (
        f"{address} closed the connection ({reason}); it may require TLS: join its registry with `adsum join` on this "
        "host, or name a certificate with --xds-cert"
    )
