"""Plans of gateways for tests that only read them. Envoy need not be installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from adsum.client.credentials.xds import XdsCredentials
from adsum.config.gateway import GatewayConfig
from adsum.envoy.plan import GatewayPlan, SocketAddress, make_plan
from adsum.envoy.process.binary import EnvoyBinary
from tests.support.programs import PROGRAMS


def plan_for(*registry: SocketAddress, xds_credentials: XdsCredentials | None = None, **settings: Any) -> GatewayPlan:
    """Returns the plan of a gateway with these settings that follows these registry nodes."""
    binary = PROGRAMS["envoy"].find() or Path("no-envoy")
    with patch("adsum.envoy.plan.find_envoy", return_value=EnvoyBinary(binary, "1.40.0")):
        return make_plan(GatewayConfig(**settings), registry, xds_credentials=xds_credentials)
