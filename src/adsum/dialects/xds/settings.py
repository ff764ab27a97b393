"""The settings of the xDS dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adsum.settings import OFF, check_host_port, setting

DEFAULT_XDS_PORT: Final = 23787
"""The port on which a registry node serves gateways and gRPC clients."""
DEFAULT_XDS_LISTEN: Final = f"127.0.0.1:{DEFAULT_XDS_PORT}"


@dataclass(frozen=True)
class XdsSettings:
    """Settings of `adsum serve` for xDS."""

    xds: str = setting(
        "xDS listen address, where gateways and gRPC clients connect; port 0 picks a free port; `off` disables xDS",
        metavar="HOST:PORT",
        default=DEFAULT_XDS_LISTEN,
    )

    def check_settings(self, store: str) -> None:
        """Raises `Invalid` if a value is wrong."""
        if self.xds != OFF:
            check_host_port("xds", self.xds)

    def listener_addresses(self) -> dict[str, str]:
        """Returns the address of the listener by its setting; none if xDS is off."""
        return {} if self.xds == OFF else {"xds": self.xds}
