"""What can go wrong for a consumer or provider, beyond the errors of the rules."""

from __future__ import annotations

from adsum.core.errors import AdsumError, UnknownInstance


class RegistryUnavailable(AdsumError):
    """No registry node answered as it should. `why` is one clause for each node asked.

    `declined`: one of them answered that it can't do so now. Without that, it may be that none runs there.
    """

    def __init__(self, reason: str, *, declined: bool = False) -> None:
        super().__init__(f"no registry is available: {reason}")
        self.reason = reason
        self.declined = declined


class NeedsRegistry(AdsumError):
    """What was asked for is something that only a registry does."""


class RegistryRefused(AdsumError):
    """The registry understood and said no; asking again the same way won't help."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"the registry refused ({status}): {detail}")
        self.status = status
        self.detail = detail


class DrainUnacknowledged(AdsumError):
    """Consumers were told, and none of them says when it has heard."""


class AnswerOverdue(AdsumError):
    """A registry node took a request that waits, and did not answer when `wait` seconds were over."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"the registry has not answered within {wait:g} s, so it is not known who confirmed")
        self.wait = wait


class AnswerLost(AdsumError):
    """A registry node took a request that waits and was lost, and no node answered until `wait` seconds were over."""

    def __init__(self, wait: float, loss: str, latest_failure: str = "") -> None:
        """`lost`: how that node was lost, in a clause; `latest_failure`: what came of asking since."""
        why = f"{loss}; then: {latest_failure}" if latest_failure and latest_failure != loss else loss
        super().__init__(f"the registry was lost within the {wait:g} s, so it is not known who confirmed: {why}")
        self.wait = wait
        self.reason = why


class InstanceForgotten(UnknownInstance):
    """An instance that a node knew before it was lost, in the middle of a call that waits, is unknown since: the
    registry lost its state, or the instance left.
    """


class NodeUnreachable(AdsumError):
    """One registry node could not be spoken with; others may."""


class NodeNotConnected(NodeUnreachable):
    """There was no connection to the node, so it has heard nothing of the request."""


class NodeDeclined(NodeUnreachable):
    """A node answered that it can't do so now: it starts or stops, or its store is away."""


class ProtocolViolation(AdsumError):
    """A registry node sent what the protocol does not allow."""
