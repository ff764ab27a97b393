"""The URL schemes that use TLS."""

from __future__ import annotations

from typing import Final

from adsum.core.model import Check, Instance

TLS_SCHEMES: Final = frozenset({"https", "grpcs", "h2", "wss"})
"""The schemes of ports that use TLS."""


def check_uses_tls(instance: Instance, check: Check) -> bool:
    """Returns whether the check connects with TLS.

    It does if it says so, or if it goes to the instance's own port and the instance's scheme uses TLS.
    """
    return check.tls or (check.port in (None, instance.port) and instance.scheme in TLS_SCHEMES)
