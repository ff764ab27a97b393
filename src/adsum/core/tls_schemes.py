"""What the scheme of an instance says of its port."""

from __future__ import annotations

from typing import Final

from adsum.core.model import Check, Instance

TLS_SCHEMES: Final = frozenset({"https", "grpcs", "h2", "wss"})
"""Schemes that say that TLS is spoken."""


def check_uses_tls(instance: Instance, check: Check) -> bool:
    """Whether a check speaks TLS: if it says so, or if it goes to a port of which the instance's scheme says so."""
    return check.tls or (check.port in (None, instance.port) and instance.scheme in TLS_SCHEMES)
