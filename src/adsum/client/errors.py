"""What can go wrong for a consumer or provider, beyond the errors of the rules."""

from __future__ import annotations

from adsum.core.errors import AdsumError


class RegistryUnavailable(AdsumError):
    """No registry node answered as it should. `why` is one clause for each node asked."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no registry is available: {why}")
        self.why = why


class NeedsRegistry(AdsumError):
    """What was asked for is something that only a registry does."""


class RegistryRefused(AdsumError):
    """The registry understood and said no; asking again the same way won't help."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"the registry refused ({status}): {detail}")
        self.status = status
        self.detail = detail


class Unacknowledged(AdsumError):
    """Consumers were told, and none of them says when it has heard."""


class AnswerOverdue(AdsumError):
    """A registry node took a request that waits, and did not answer when `wait` seconds were over."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"the registry has not answered within {wait:g} s, so it is not known who confirmed")
        self.wait = wait


class Unreachable(AdsumError):
    """One registry node could not be spoken with; others may."""


class Garbled(AdsumError):
    """A registry node sent what the protocol does not allow."""
