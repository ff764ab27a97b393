"""What can go wrong for a consumer or provider, beyond the errors of the rules."""

from __future__ import annotations

from adsum.core.errors import AdsumError, UnknownInstance


class RegistryUnavailable(AdsumError):
    """No registry node answered as it should. `why` is one clause for each node asked.

    `declined`: one of them answered that it can't do so now. Without that, it may be that none runs there.
    """

    def __init__(self, why: str, *, declined: bool = False) -> None:
        super().__init__(f"no registry is available: {why}")
        self.why = why
        self.declined = declined


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


class AnswerLost(AdsumError):
    """A registry node took a request that waits and was lost, and no node answered until `wait` seconds were over."""

    def __init__(self, wait: float, lost: str, latest: str = "") -> None:
        """`lost`: how that node was lost, in a clause; `latest`: what came of asking since."""
        why = f"{lost}; then: {latest}" if latest and latest != lost else lost
        super().__init__(f"the registry was lost within the {wait:g} s, so it is not known who confirmed: {why}")
        self.wait = wait
        self.why = why


class InstanceForgotten(UnknownInstance):
    """An instance that a node knew before it was lost, in the middle of a call that waits, is unknown since: the
    registry lost its state, or the instance left.
    """


class Unreachable(AdsumError):
    """One registry node could not be spoken with; others may."""


class NotConnected(Unreachable):
    """There was no connection to the node, so it has heard nothing of the request."""


class Declined(Unreachable):
    """A node answered that it can't do so now: it starts or stops, or its store is away."""


class Garbled(AdsumError):
    """A registry node sent what the protocol does not allow."""
