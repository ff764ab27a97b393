"""What a gateway was told last, kept on disk: an Envoy can start from it while no registry answers.

It is made from what Envoy says that it was told, and holds no key: those are read from the gateway's own files.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from adsum.cache_files import replace_private_file
from adsum.envoy.plan import GatewayPlan

FILE_FORMAT: Final = 1
"""Of the file; one of another format is left alone."""

_log = logging.getLogger("adsum.envoy")


@dataclass(frozen=True, slots=True)
class StaticResources:
    """Listeners with their routes and clusters with their instances, as static resources of a bootstrap."""

    listeners: list[dict[str, Any]]
    clusters: list[dict[str, Any]]

    @classmethod
    def from_config_dump(cls, dump: Mapping[str, Any]) -> StaticResources:
        """From Envoy's config_dump."""
        parts = {each["@type"].rpartition(".")[2]: each for each in dump.get("configs", ())}
        listeners = parts.get("ListenersConfigDump", {}).get("dynamic_listeners", ())
        clusters = parts.get("ClustersConfigDump", {}).get("dynamic_active_clusters", ())
        filters = _named(parts.get("EcdsConfigDump", {}).get("ecds_filters", ()), "ecds_filter", "name")
        routes = _named(parts.get("RoutesConfigDump", {}).get("dynamic_route_configs", ()), "route_config", "name")
        assignments = _named(
            parts.get("EndpointsConfigDump", {}).get("dynamic_endpoint_configs", ()), "endpoint_config", "cluster_name"
        )
        return cls(
            [
                _settled(each["active_state"]["listener"], routes, filters)
                for each in listeners
                if "active_state" in each
            ],
            [_populated(each["cluster"], assignments) for each in clusters],
        )


class LastGoodConfig:
    """Where it is kept: apart by what the gateway is and where it listens."""

    def __init__(self, folder: Path | None, plan: GatewayPlan) -> None:
        """Without a folder it is kept in memory alone, as long as this process lasts."""
        said = json.dumps([plan.node, plan.profile.metadata(), plan.registry_nodes], sort_keys=True)
        self.name = hashlib.sha256(said.encode()).hexdigest()[:16]
        self.path = folder / f"{self.name}.json" if folder is not None else None
        self._latest = b""
        self._on_disk = False
        self._loudness = logging.WARNING

    def load(self) -> StaticResources | None:
        """What was kept; None if there is nothing, or nothing that can be read."""
        try:
            content = json.loads(self._latest or self._read())
            if content.get("format") == FILE_FORMAT:
                return StaticResources(content["listeners"], content["clusters"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, AttributeError) as error:
            _log.warning("what this gateway was told last can't be read from %s: %s", self.path, error)
        return None

    def save(self, resources: StaticResources) -> None:
        """Keep it instead of what was kept. What goes wrong is logged: a gateway runs without it."""
        content = json.dumps(
            {"format": FILE_FORMAT, "listeners": resources.listeners, "clusters": resources.clusters}
        ).encode()
        if not resources.listeners or (content == self._latest and self._on_disk):
            return
        self._latest = content
        try:
            self._on_disk = self._write(content)
        except OSError as error:
            self._on_disk = False
            self._complain(f"in {self.path}: {error}")

    def _read(self) -> bytes:
        if self.path is None:
            raise FileNotFoundError
        return self.path.read_bytes()

    def _write(self, content: bytes) -> bool:
        if self.path is None:
            self._complain("over restarts: this user has no home directory (XDG_CACHE_HOME names another place)")
            return False
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private_file(self.path, content)
        return True

    def _complain(self, why: str) -> None:
        _log.log(self._loudness, "what this gateway is told can't be kept %s", why)
        self._loudness = logging.DEBUG  # Once is enough: it is tried again and again.


def _named(dumped: Any, key: str, name: str) -> dict[str, dict[str, Any]]:
    return {each[key][name]: _plain(each[key]) for each in dumped}


def _plain(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if key != "@type"}


def _settled(
    listener: Mapping[str, Any], routes: Mapping[str, dict[str, Any]], filters: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """With its routes and filters in it, and with secrets that need nobody to tell them."""

    def settle(value: Any) -> Any:
        if isinstance(value, list):
            return [settle(each) for each in value]
        if not isinstance(value, dict):
            return value
        named = ("rds", "sds_config", "config_discovery")
        settled = {key: settle(each) for key, each in value.items() if key not in named}
        if "rds" in value:
            name = value["rds"]["route_config_name"]
            settled["route_config"] = routes.get(name, {"name": name})
        if "config_discovery" in value:
            told = filters.get(value["name"], {})
            settled["typed_config"] = told.get("typed_config", value["config_discovery"]["default_config"])
        return settled

    settled: dict[str, Any] = settle(_plain(listener))
    return settled


def _populated(cluster: Mapping[str, Any], assignments: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """With its instances in it."""
    populated = _plain(cluster)
    source = populated.pop("eds_cluster_config", None)
    if source is None:
        return populated
    name = source.get("service_name") or populated["name"]
    assignment = assignments.get(name, {})
    localities = [_weighed(each) for each in assignment.get("endpoints", ())]
    return {
        **populated,
        "type": "STATIC",
        "load_assignment": {**assignment, "cluster_name": populated["name"], "endpoints": localities},
    }


def _weighed(locality: Mapping[str, Any]) -> dict[str, Any]:
    """Envoy says 0 for a weight that nobody set, and refuses to be told so."""
    return {key: value for key, value in locality.items() if key != "load_balancing_weight" or value}
