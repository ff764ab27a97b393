"""What Envoy says on standard error, line by line, as records of our own log."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

FORMAT: Final = "[%l][%n] %v"
"""What Envoy is told to write: level, component, message. The time is ours."""
MAX_LINE: Final = 16_384
"""Bytes; a longer line is told in pieces of that length."""
LAST_WORDS: Final = 5
"""How many errors are remembered, to say why it ended."""

LEVELS: Final[Mapping[str, int]] = MappingProxyType(
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
EXPECTED: Final = (
    "caught ENVOY_SIGTERM",
    "shutting down admin due to child startup",
    "terminating parent process",
    "gRPC config: initial fetch timed out",
)
"""Warnings about what we make it do: told at level debug."""

_LINE: Final = re.compile(r"\[(?P<level>[a-z]+)\]\[(?P<component>[\w.]+)\] (?P<message>.*)")
_log = logging.getLogger("adsum.envoy")


class Lines:
    """Cuts what comes in into lines and logs them."""

    def __init__(self) -> None:
        self._rest = b""
        self._level = logging.WARNING
        self.errors: deque[str] = deque(maxlen=LAST_WORDS)
        """Its latest errors."""
        self.ending = False
        """Whether it was told to end: what it then complains of is no trouble."""

    def feed(self, chunk: bytes) -> None:
        """Log every line that is complete; the rest waits. An empty chunk is the end."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if not chunk or len(self._rest) > MAX_LINE:
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
        self._level = LEVELS.get(parts["level"], logging.WARNING)
        if self._level >= logging.ERROR:
            self.errors.append(message)
        if self.ending or message.startswith(EXPECTED):
            self._level = logging.DEBUG
        _log.log(self._level, "%s: %s", component, message)


def _pieces(line: bytes) -> Iterator[str]:
    for start in range(0, len(line), MAX_LINE):
        yield line[start : start + MAX_LINE].decode(errors="replace")
