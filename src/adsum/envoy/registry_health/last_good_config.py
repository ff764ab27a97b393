"""The last good configuration of a gateway, kept on disk: Envoy can start from it while no registry answers.

It is made from Envoy's own config dump. It holds no private key; keys are read from the gateway's own files.
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
"""The format of the file. A file of another format is ignored."""

_log = logging.getLogger("adsum.envoy")


@dataclass(frozen=True, slots=True)
class StaticResources:
    """Listeners with their routes and clusters with their endpoints, as static resources of a bootstrap."""

    listeners: list[dict[str, Any]]
    clusters: list[dict[str, Any]]

    @classmethod
    def from_config_dump(cls, dump: Mapping[str, Any]) -> StaticResources:
        """Converts Envoy's config dump."""
        parts = {config["@type"].rpartition(".")[2]: config for config in dump.get("configs", ())}
        listeners = parts.get("ListenersConfigDump", {}).get("dynamic_listeners", ())
        clusters = parts.get("ClustersConfigDump", {}).get("dynamic_active_clusters", ())
        filters = _by_name(parts.get("EcdsConfigDump", {}).get("ecds_filters", ()), "ecds_filter", "name")
        routes = _by_name(parts.get("RoutesConfigDump", {}).get("dynamic_route_configs", ()), "route_config", "name")
        assignments = _by_name(
            parts.get("EndpointsConfigDump", {}).get("dynamic_endpoint_configs", ()), "endpoint_config", "cluster_name"
        )
        return cls(
            [
                _static_listener(entry["active_state"]["listener"], routes, filters)
                for entry in listeners
                if "active_state" in entry
            ],
            [_static_cluster(entry["cluster"], assignments) for entry in clusters],
        )


class LastGoodConfig:
    """The file of one gateway. Its name depends on the gateway's node, profile and registry."""

    def __init__(self, folder: Path | None, plan: GatewayPlan) -> None:
        """`folder` None: the configuration is kept in memory only, until this process ends."""
        identity = json.dumps([plan.node, plan.profile.metadata(), plan.registry_nodes], sort_keys=True)
        self.name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.path = folder / f"{self.name}.json" if folder is not None else None
        self._latest = b""
        self._is_on_disk = False
        self._log_level = logging.WARNING

    def load(self) -> StaticResources | None:
        """Returns the kept configuration; None if there is none or it can't be read."""
        try:
            content = json.loads(self._latest or self._read())
            if content.get("format") == FILE_FORMAT:
                return StaticResources(content["listeners"], content["clusters"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, AttributeError) as error:
            _log.warning("the last good configuration can't be read from %s: %s", self.path, error)
        return None

    def save(self, resources: StaticResources) -> None:
        """Replaces the kept configuration. Errors are logged only: the gateway runs without it."""
        content = json.dumps(
            {"format": FILE_FORMAT, "listeners": resources.listeners, "clusters": resources.clusters}
        ).encode()
        if not resources.listeners or (content == self._latest and self._is_on_disk):
            return
        self._latest = content
        try:
            self._is_on_disk = self._write(content)
        except OSError as error:
            self._is_on_disk = False
            self._log_problem(f"in {self.path}: {error}")

    def _read(self) -> bytes:
        if self.path is None:
            raise FileNotFoundError
        return self.path.read_bytes()

    def _write(self, content: bytes) -> bool:
        if self.path is None:
            self._log_problem("across restarts: this user has no home directory; XDG_CACHE_HOME names another folder")
            return False
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private_file(self.path, content)
        return True

    def _log_problem(self, problem: str) -> None:
        _log.log(self._log_level, "the last good configuration can't be kept %s", problem)
        self._log_level = logging.DEBUG  # Later failures are the same, and are logged at debug level.


def _by_name(entries: Any, key: str, name: str) -> dict[str, dict[str, Any]]:
    return {entry[key][name]: _without_type(entry[key]) for entry in entries}


def _without_type(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if key != "@type"}


def _static_listener(
    listener: Mapping[str, Any], routes: Mapping[str, dict[str, Any]], filters: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Returns the listener with its routes and filters inline and without any reference to the registry."""

    def make_static(value: Any) -> Any:
        if isinstance(value, list):
            return [make_static(item) for item in value]
        if not isinstance(value, dict):
            return value
        references = ("rds", "sds_config", "config_discovery")
        static = {key: make_static(item) for key, item in value.items() if key not in references}
        if "rds" in value:
            name = value["rds"]["route_config_name"]
            static["route_config"] = routes.get(name, {"name": name})
        if "config_discovery" in value:
            filter_config = filters.get(value["name"], {})
            static["typed_config"] = filter_config.get("typed_config", value["config_discovery"]["default_config"])
        return static

    static: dict[str, Any] = make_static(_without_type(listener))
    return static


def _static_cluster(cluster: Mapping[str, Any], assignments: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the cluster with its endpoints inline."""
    static = _without_type(cluster)
    source = static.pop("eds_cluster_config", None)
    if source is None:
        return static
    name = source.get("service_name") or static["name"]
    assignment = assignments.get(name, {})
    localities = [_static_locality(locality) for locality in assignment.get("endpoints", ())]
    return {
        **static,
        "type": "STATIC",
        "load_assignment": {**assignment, "cluster_name": static["name"], "endpoints": localities},
    }


def _static_locality(locality: Mapping[str, Any]) -> dict[str, Any]:
    """Removes a load-balancing weight of 0: Envoy dumps 0 for an unset weight, but rejects it as input."""
    return {key: value for key, value in locality.items() if key != "load_balancing_weight" or value}
