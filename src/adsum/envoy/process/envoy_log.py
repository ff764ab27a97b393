"""What Envoy says on standard error, line by line, as records of our own log."""

from __future__ import annotations

import logging
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

ENVOY_LOG_FORMAT: Final = "[%l][%n] %v"
"""What Envoy is told to write: level, component, message. The time is ours."""
MAX_LINE_BYTES: Final = 16_384
"""Bytes; a longer line is told in pieces of that length."""
MAX_KEPT_ERRORS: Final = 5
"""How many errors are remembered, to say why it ended."""

PYTHON_LEVELS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "trace": logging.DEBUG,
        "debug": logging.DEBUG,
        "info": logging.INFO,
        "warning": logging.WARNING,
        "error": logging.ERROR,
        "critical": logging.ERROR,
    }
)
"""Envoy's levels as ours."""
ENVOY_LEVELS: Final[Mapping[str, str]] = MappingProxyType(
    {"debug": "debug", "info": "warning", "warning": "warning", "error": "error"}
)
"""Ours as Envoy's: its infos are about its insides, several for every cluster; we tell what matters of them."""
EXPECTED_WARNINGS: Final = (
    "caught ENVOY_SIGTERM",
    "shutting down admin due to child startup",
    "terminating parent process",
    "gRPC config: initial fetch timed out",
)
"""Warnings about what we make it do: told at level debug."""
OUTAGE_PATTERN: Final = re.compile(r"(?:DeltaAggregatedResources|StreamLoadStats) gRPC config stream.* closed")
"""What is said at every attempt to reach the registry, once or twice a second: told once an outage, then at debug."""
REFUSAL_PATTERN: Final = re.compile(
    r"DeltaAggregatedResources gRPC config stream.* closed[^:]*: (?P<code>\d+), (?P<why>.*)"
)
"""What is said when the stream of resources ends, with its gRPC status."""
REFUSAL_CODES: Final = frozenset({"3", "7", "8", "12", "16"})
"""The statuses, as Envoy writes them, that are a registry's own answer: INVALID_ARGUMENT, PERMISSION_DENIED,
RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAUTHENTICATED. Others are also what Envoy calls a connection that broke."""
OUTAGE_QUIET_PERIOD: Final = 15.0
"""Seconds without an attempt that failed after which an outage is over; they come every second or two."""

_LINE: Final = re.compile(r"\[(?P<level>[a-z]+)\]\[(?P<component>[\w.]+)\] (?P<message>.*)")
_log = logging.getLogger("adsum.envoy")


class EnvoyLog:
    """Cuts what comes in into lines and logs them."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failed = -math.inf
        """When the registry was out of reach last."""
        self._rest = b""
        self._level = logging.WARNING
        self.errors: deque[str] = deque(maxlen=MAX_KEPT_ERRORS)
        """Its latest errors."""
        self.refusal = ""
        """Why the registry ended the stream of resources last; "" if it never did."""
        self.refused_at = -math.inf
        """When it did, by our clock."""
        self.stopping = False
        """Whether it was told to end: what it then complains of is no trouble."""

    def feed(self, chunk: bytes) -> None:
        """Log every line that is complete; the rest waits. An empty chunk is the end."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if not chunk or len(self._rest) > MAX_LINE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        for line in filter(None, lines):
            for piece in _pieces(line):
                self._tell(piece)

    def _tell(self, line: str) -> None:
        parts = _LINE.fullmatch(line)
        if parts is None:  # A further line of the same message, or said before it knew how to, or by the launcher.
            self.errors.append(line)
            _log.log(self._level, "%s", line)
            return
        component, message = parts["component"], parts["message"]
        self._note_refusal(message)
        self._level = PYTHON_LEVELS.get(parts["level"], logging.WARNING)
        if self._level >= logging.ERROR:
            self.errors.append(message)
        if self.stopping or message.startswith(EXPECTED_WARNINGS) or self._is_old_news(message):
            self._level = logging.DEBUG
        _log.log(self._level, "%s: %s", component, message)

    def _note_refusal(self, message: str) -> None:
        refused = REFUSAL_PATTERN.match(message)
        if refused is not None and refused["code"] in REFUSAL_CODES:
            self.refusal, self.refused_at = refused["why"], self._now()

    def _is_old_news(self, message: str) -> bool:
        if OUTAGE_PATTERN.match(message) is None:
            return False
        before, self._failed = self._failed, self._now()
        return self._failed - before < OUTAGE_QUIET_PERIOD


def _pieces(line: bytes) -> Iterator[str]:
    for start in range(0, len(line), MAX_LINE_BYTES):
        yield line[start : start + MAX_LINE_BYTES].decode(errors="replace")
