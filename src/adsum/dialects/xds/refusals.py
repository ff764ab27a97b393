"""How a stream is turned away."""

from __future__ import annotations

from adsum.core.errors import AdsumError


class Refused(AdsumError):
    """The stream is ended with this gRPC status, by its name."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


def malformed(words: str) -> Refused:
    """The peer said what it may not say."""
    return Refused("INVALID_ARGUMENT", words)


def exhausted(words: str) -> Refused:
    """There is no room for more."""
    return Refused("RESOURCE_EXHAUSTED", words)
