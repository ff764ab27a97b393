"""Exit codes that mean something, and which error ends with which (sysexits.h, timeout(1), shells)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from adsum.balance.picker import NoEndpoint
from adsum.cli.settings.loader import ConfigError
from adsum.client.errors import AnswerLost, AnswerOverdue, Garbled, NeedsRegistry, RegistryUnavailable, Unreachable
from adsum.core.errors import AdsumError, Invalid, Overloaded, StoreUnavailable, UnknownInstance


class Exit(IntEnum):
    """What a program that called us learns from our exit code."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    """No such service or instance, or none that may be used. Ours; the others are conventions."""
    UNAVAILABLE = 69
    TRY_AGAIN = 75
    CONFIG = 78
    TIMEOUT = 124
    NOT_EXECUTABLE = 126
    NO_PROGRAM = 127
    INTERRUPTED = 130


CODES: Final[tuple[tuple[type[BaseException], Exit], ...]] = (
    (ConfigError, Exit.CONFIG),
    (UnknownInstance, Exit.NOT_FOUND),
    (NoEndpoint, Exit.NOT_FOUND),
    (RegistryUnavailable, Exit.UNAVAILABLE),
    (Unreachable, Exit.UNAVAILABLE),
    (Garbled, Exit.UNAVAILABLE),
    (StoreUnavailable, Exit.UNAVAILABLE),
    (Overloaded, Exit.TRY_AGAIN),
    (AnswerOverdue, Exit.TIMEOUT),
    (AnswerLost, Exit.TIMEOUT),
    (Invalid, Exit.USAGE),
    (NeedsRegistry, Exit.USAGE),
    (AdsumError, Exit.FAILURE),
    (TimeoutError, Exit.TIMEOUT),
)
"""The first that fits."""


class Ended(AdsumError):
    """A command has said what there is to say and ends with `code`; `sentence` goes to standard error."""

    def __init__(self, code: Exit, sentence: str = "") -> None:
        super().__init__(sentence)
        self.code = code


def code_of(error: BaseException) -> Exit:
    """The exit code that an error ends with."""
    if isinstance(error, Ended):
        return error.code
    return next((code for kind, code in CODES if isinstance(error, kind)), Exit.FAILURE)
