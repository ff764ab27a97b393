"""Plans of gateways for tests that read them: Envoy need not be there."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

from adsum.config.serve import GatewayConfig
from adsum.envoy.plan import Place, Plan, plan
from adsum.envoy.process.binary import Binary
from tests.support.programs import PEERS


def planned(*registry: Place, **settings: Any) -> Plan:
    """The plan of a gateway with these settings that follows these nodes."""
    there = PEERS["envoy"].find() or Path("no-envoy")
    with patch("adsum.envoy.plan.find", return_value=Binary(there, "1.40.0")):
        return plan(GatewayConfig(**settings), registry)
