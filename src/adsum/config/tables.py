"""The tables of the configuration file by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from adsum.config.client import ClientConfig
from adsum.config.gateway import GatewayConfig
from adsum.config.instance import InstanceConfig
from adsum.config.run import RunConfig
from adsum.config.serve import ServeConfig

TABLES: Final[Mapping[str, type]] = MappingProxyType(
    {
        "client": ClientConfig,
        "serve": ServeConfig,
        "instance": InstanceConfig,
        "run": RunConfig,
        "gateway": GatewayConfig,
    }
)
"""The tables of the configuration file."""
