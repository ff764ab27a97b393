"""Settings, read once at the edge. The CLI derives its flags from these fields; `help` is what it says about them."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

LISTEN: Final = "127.0.0.1:23786"
"""A-D-S-U-M on a phone's keys."""


def default_store() -> str:
    """The SQLite file in the XDG data folder."""
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return f"sqlite:///{Path(home) / 'adsum' / 'adsum.db'}"


def _helped(text: str, **options: Any) -> Any:
    return field(metadata={"help": text}, **options)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What `adsum serve` is told. Lengths of time are seconds."""

    listen: str = _helped("Address and port to listen on; port 0 picks a free one", default=LISTEN)
    store: str = _helped("Where the catalog is kept: memory: or sqlite:///PATH", default_factory=default_store)
    node: str = _helped("This node's name", default_factory=platform.node)
    log_level: str = _helped("debug, info, warning or error", default="info")
    log_format: str = _helped("text or json", default="text")
    max_connections: int = _helped("Connections at a time; past it new ones are turned away with 503", default=20_000)
    probes: int = _helped("Checks that run at the same time", default=512)
    probe_deny: tuple[str, ...] = _helped("Further ranges (CIDR) that instances and probes may not be in", default=())
    probe_allow: tuple[str, ...] = _helped("Ranges (CIDR) allowed although they are refused by default", default=())
    guard_share: float = _helped("Share of lapsed leases of a service past which expiries are held back", default=0.5)
    guard_hold: float = _helped("Seconds that one mass lapse is held back at most", default=3_600.0)
