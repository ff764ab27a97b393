"""The exit codes of the commands and the errors that lead to them. They follow sysexits.h, timeout(1) and shells."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from adsum.balance.picker import NoEndpoint
from adsum.cli.settings.loader import ConfigError
from adsum.client.errors import (
    AnswerLost,
    AnswerOverdue,
    AuthorityMismatch,
    NeedsRegistry,
    NodeUnreachable,
    NotAllowed,
    NotAuthenticated,
    ProtocolViolation,
    RegistryUnavailable,
)
from adsum.core.errors import AdsumError, Invalid, Overloaded, StoreUnavailable, UnknownInstance


class ExitCode(IntEnum):
    """The exit codes."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    """No such service or instance, or none that may be used. This code is our own; the others are conventions."""
    UNAVAILABLE = 69
    TRY_AGAIN = 75
    NO_PERMISSION = 77
    """The registry does not know the caller, or its scopes don't allow the request."""
    CONFIG = 78
    TIMEOUT = 124
    NOT_EXECUTABLE = 126
    PROGRAM_NOT_FOUND = 127
    INTERRUPTED = 130


ERROR_CODES: Final[tuple[tuple[type[BaseException], ExitCode], ...]] = (
    (ConfigError, ExitCode.CONFIG),
    (UnknownInstance, ExitCode.NOT_FOUND),
    (NoEndpoint, ExitCode.NOT_FOUND),
    (RegistryUnavailable, ExitCode.UNAVAILABLE),
    (NodeUnreachable, ExitCode.UNAVAILABLE),
    (ProtocolViolation, ExitCode.UNAVAILABLE),
    (StoreUnavailable, ExitCode.UNAVAILABLE),
    (Overloaded, ExitCode.TRY_AGAIN),
    (AnswerOverdue, ExitCode.TIMEOUT),
    (AnswerLost, ExitCode.TIMEOUT),
    (NotAuthenticated, ExitCode.NO_PERMISSION),
    (NotAllowed, ExitCode.NO_PERMISSION),
    (AuthorityMismatch, ExitCode.NO_PERMISSION),
    (Invalid, ExitCode.USAGE),
    (NeedsRegistry, ExitCode.USAGE),
    (AdsumError, ExitCode.FAILURE),
    (TimeoutError, ExitCode.TIMEOUT),
)
"""Error → exit code. The first entry that matches an error decides."""


class CommandFailed(AdsumError):
    """A command ends with the exit code `code`; `sentence` goes to standard error."""

    def __init__(self, code: ExitCode, sentence: str = "") -> None:
        super().__init__(sentence)
        self.code = code


def exit_code_of(error: BaseException) -> ExitCode:
    """Returns the exit code of a command that fails with `error`."""
    if isinstance(error, CommandFailed):
        return error.code
    return next((code for kind, code in ERROR_CODES if isinstance(error, kind)), ExitCode.FAILURE)
