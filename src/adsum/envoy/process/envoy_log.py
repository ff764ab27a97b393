"""Reads what Envoy writes to standard error and writes it to our own log, line by line."""

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
"""Envoy's log format: level, component, message. We add the time."""
MAX_LINE_BYTES: Final = 16_384
"""Bytes; a longer line is logged in pieces of that length."""
MAX_KEPT_ERRORS: Final = 5
"""The number of latest errors that are kept to explain an exit."""

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
"""Envoy's levels as Python's."""
ENVOY_LEVELS: Final[Mapping[str, str]] = MappingProxyType(
    {"debug": "debug", "info": "warning", "warning": "warning", "error": "error"}
)
"""Our levels as Envoy's. Envoy's info messages are about its internals, several per cluster, so our level info makes
Envoy log only warnings."""
EXPECTED_WARNINGS: Final = (
    "caught ENVOY_SIGTERM",
    "shutting down admin due to child startup",
    "terminating parent process",
    "gRPC config: initial fetch timed out",
)
"""Warnings that the gateway itself causes. They are logged at debug level."""
OUTAGE_PATTERN: Final = re.compile(r"(?:DeltaAggregatedResources|StreamLoadStats) gRPC config stream.* closed")
"""Messages that Envoy writes at every failed attempt to reach the registry, once or twice a second. The first of an
outage is logged as it is, the others at debug level."""
REFUSAL_PATTERN: Final = re.compile(
    r"DeltaAggregatedResources gRPC config stream.* closed[^:]*: (?P<code>\d+), (?P<reason>.*?)(?:{via_upstream})?"
)
"""The message at the end of the stream of resources, with its gRPC status."""
REFUSAL_CODES: Final = frozenset({"3", "7", "8", "12", "16"})
"""The gRPC statuses that only a registry itself sends: INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED,
UNIMPLEMENTED, UNAUTHENTICATED. Envoy uses other statuses for broken connections, too."""
CREDENTIAL_REFUSALS: Final = frozenset({"7", "16"})
"""Those of them that mean that the registry does not accept who the gateway is: PERMISSION_DENIED, UNAUTHENTICATED."""
OUTAGE_QUIET_PERIOD: Final = 15.0
"""Seconds without a failed attempt after which an outage is over. Attempts come every second or two."""

_LINE: Final = re.compile(r"\[(?P<level>[a-z]+)\]\[(?P<component>[\w.]+)\] (?P<message>.*)")
_log = logging.getLogger("adsum.envoy")


class EnvoyLog:
    """Splits Envoy's output into lines and logs them."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failed_at = -math.inf
        """The time of the last failed attempt to reach the registry."""
        self._rest = b""
        self._level = logging.WARNING
        self.errors: deque[str] = deque(maxlen=MAX_KEPT_ERRORS)
        """The latest errors."""
        self.refusal = ""
        """The reason with which the registry last ended the stream of resources; "" if it never did."""
        self.refusal_code = ""
        """The gRPC status of that refusal."""
        self.refused_at = -math.inf
        """The time of that refusal, on the monotonic clock."""
        self.stopping = False
        """True once the gateway has signalled Envoy to exit. Its messages are then logged at debug level."""

    def feed(self, chunk: bytes) -> None:
        """Logs every complete line and keeps the rest. An empty chunk ends the output."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if not chunk or len(self._rest) > MAX_LINE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        for line in filter(None, lines):
            for piece in _pieces(line):
                self._log_line(piece)

    def _log_line(self, line: str) -> None:
        parts = _LINE.fullmatch(line)
        if parts is None:  # It continues a message, was written before the format was set, or comes from the launcher.
            self.errors.append(line)
            _log.log(self._level, "%s", line)
            return
        component, message = parts["component"], parts["message"]
        self._note_refusal(message)
        self._level = PYTHON_LEVELS.get(parts["level"], logging.WARNING)
        if self._level >= logging.ERROR:
            self.errors.append(message)
        if self.stopping or message.startswith(EXPECTED_WARNINGS) or self._is_repeated_outage(message):
            self._level = logging.DEBUG
        _log.log(self._level, "%s: %s", component, message)

    def _note_refusal(self, message: str) -> None:
        refused = REFUSAL_PATTERN.fullmatch(message)
        if refused is not None and refused["code"] in REFUSAL_CODES:
            self.refusal, self.refusal_code, self.refused_at = refused["reason"], refused["code"], self._now()

    def _is_repeated_outage(self, message: str) -> bool:
        if OUTAGE_PATTERN.match(message) is None:
            return False
        previous, self._failed_at = self._failed_at, self._now()
        return self._failed_at - previous < OUTAGE_QUIET_PERIOD


def _pieces(line: bytes) -> Iterator[str]:
    for start in range(0, len(line), MAX_LINE_BYTES):
        yield line[start : start + MAX_LINE_BYTES].decode(errors="replace")
