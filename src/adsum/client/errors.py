"""The errors of a consumer or provider, beyond those of `core.errors`."""

from __future__ import annotations

from adsum.core.errors import AdsumError, UnknownInstance


class RegistryUnavailable(AdsumError):
    """No registry node gave a usable answer. `reason` has one clause for each node that was tried.

    `declined`: a node answered that it can't serve the request now. `untrusted`: a node presented a certificate that
    can't be verified. Otherwise it may be that no node runs.
    """

    def __init__(self, reason: str, *, declined: bool = False, untrusted: bool = False) -> None:
        super().__init__(f"no registry is available: {reason}")
        self.reason = reason
        self.declined = declined
        self.untrusted = untrusted


class NeedsRegistry(AdsumError):
    """The request needs an Adsum registry; etcd and Consul can't serve it."""


class RegistryRefused(AdsumError):
    """The registry understood the request and refused it; the same request will be refused again."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"the registry refused ({status}): {detail}")
        self.status = status
        self.detail = detail


class NotAuthenticated(RegistryRefused):
    """The registry does not know this program: it sent no token, or one that is wrong, has expired or was revoked.

    `origin` is a clause: where the token comes from, or how to get one.
    """

    def __init__(self, detail: str, origin: str) -> None:
        super().__init__(401, f"{detail} ({origin})")
        self.origin = origin


class NotAllowed(RegistryRefused):
    """The scopes of this program don't allow the request (403), or it may not see the service (404)."""


class DrainUnacknowledged(AdsumError):
    """The source notified consumers of the drain, but they can't acknowledge it (etcd, Consul)."""


class AnswerOverdue(AdsumError):
    """A registry node accepted a request that waits, and did not answer within its `wait` seconds."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"the registry has not answered within {wait:g} s, so it is not known who confirmed")
        self.wait = wait


class AnswerLost(AdsumError):
    """A registry node accepted a request that waits and was lost, and no node answered within the `wait` seconds."""

    def __init__(self, wait: float, loss: str, latest_failure: str = "") -> None:
        """`loss`: how that node was lost, as a clause; `latest_failure`: the failure of the latest attempt."""
        reason = f"{loss}; then: {latest_failure}" if latest_failure and latest_failure != loss else loss
        super().__init__(f"the registry was lost within the {wait:g} s, so it is not known who confirmed: {reason}")
        self.wait = wait
        self.reason = reason


class InstanceForgotten(UnknownInstance):
    """The node that had accepted a request about an instance was lost, and the instance is unknown since.

    The registry lost its state, or the instance left.
    """


class NodeUnreachable(AdsumError):
    """One registry node can't be reached or gave no usable answer; other nodes may."""


class NodeNotConnected(NodeUnreachable):
    """No connection to the node could be made, so it received nothing of the request."""


class NodeNotTrusted(NodeNotConnected):
    """A node presented a certificate that this host can't verify. It received nothing of the request."""


class NodeDeclined(NodeUnreachable):
    """A node answered that it can't serve the request now: it starts or stops, or its store is unavailable."""


class AuthorityMismatch(AdsumError):
    """A node presented another authority than the one whose hash this host knows."""


class ProtocolViolation(AdsumError):
    """A registry node sent something that the protocol does not allow."""
