"""Builds a registration from the settings. It does not import `Client`: `adsum run` starts its program first."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from adsum.cli.settings.loader import Settings
from adsum.client.local_address import LOOPBACK, default_id
from adsum.client.registration.check_specs import parse_checks
from adsum.config.client import ClientConfig
from adsum.config.instance import InstanceConfig
from adsum.core.errors import Invalid
from adsum.core.model import Instance, Registration

SETTING_NAMES: Final = MappingProxyType({"tags": "tag", "checks": "check"})
"""Field of an instance → name of its setting."""


def build_registration(loaded: Settings, service: str, port: int, address: str = "") -> Registration:
    """Returns the registration that the settings describe, at `address` (default: the setting, else loopback).

    Raises `ConfigError`.
    """
    config = loaded.get(InstanceConfig)
    try:
        instance = Instance(
            service=service,
            id=config.id or default_id(port, address or config.address),
            address=address or config.address or LOOPBACK,
            port=port,
            scheme=config.scheme,
            zone=loaded.get(ClientConfig).zone,
            weight=config.weight,
            tags=config.tag,
            metadata=config.metadata,
        )
        return Registration(instance, config.ttl, config.grace, parse_checks(config.check))
    except Invalid as error:
        raise loaded.config_error(error, SETTING_NAMES) from None
