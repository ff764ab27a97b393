"""The errors that Adsum raises on purpose.

Rules raise them. A dialect translates them into its own answers (one table at its top), and the CLI into one sentence.
Nothing here depends on HTTP.
"""

from __future__ import annotations


class AdsumError(Exception):
    """The base of every error that Adsum raises on purpose."""


class Invalid(AdsumError):
    """A value is not valid.

    `field` is the dotted path of the value as the user wrote it (`instance.port`, `checks[0].interval`). `problem` is
    one clause that says which values are valid.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem

    def prefixed(self, prefix: str) -> Invalid:
        """Returns the same error for the value `prefix` that contains this field."""
        joint = "" if self.field.startswith("[") else "."
        return Invalid(f"{prefix}{joint}{self.field}", self.problem)


class Unauthenticated(AdsumError):
    """The caller has not proved who it is: it sent nothing, or something wrong. `reason` is a word for metrics."""

    def __init__(self, problem: str, reason: str) -> None:
        super().__init__(problem)
        self.reason = reason


class Forbidden(AdsumError):
    """The caller's scopes don't allow the request. `reason` is a word for metrics."""

    reason = "forbidden"


class NotOwner(Forbidden):
    """Another caller registered the instance, and this one may not operate the service."""

    reason = "not-owner"

    def __init__(self, service: str, id: str, caller: str) -> None:
        super().__init__(
            f"{caller} may not change {service}/{id}: another token registered it, so this needs the scope "
            f"operate:{service}"
        )


class InvisibleService(AdsumError):
    """The caller may not read the service, and does not learn whether it exists."""

    reason = "invisible"

    def __init__(self, service: str, caller: str) -> None:
        super().__init__(f"{caller} sees no service {service!r}: reading it needs the scope read:{service}")
        self.service = service


class UnknownInstance(AdsumError):
    """The service has no instance with this id."""

    def __init__(self, service: str, id: str) -> None:
        super().__init__(f"no instance {id!r} of service {service!r} is registered")
        self.service = service
        self.id = id


class UnknownDocument(AdsumError):
    """No document of this kind and name is declared."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no {kind} {name!r} is declared")


class NameTaken(AdsumError):
    """Another token has the name."""


class LeaseLost(AdsumError):
    """The holder no longer has the lease, because another holder has registered the instance."""

    def __init__(self, service: str, id: str) -> None:
        super().__init__(f"the lease of {service!r} instance {id!r} is held by a later registration")
        self.service = service
        self.id = id


class RegistrationConflict(AdsumError):
    """A live process has the id or the place that a registration requests."""


class ServiceNotEmpty(AdsumError):
    """A service with instances can't be forgotten."""

    def __init__(self, service: str, count: int) -> None:
        lists = "1 instance" if count == 1 else f"{count} instances"
        super().__init__(f"{service!r} lists {lists}: only a service without one can be forgotten; deregister first")


class CatalogFull(AdsumError):
    """A bound of the catalog is reached; nothing was written."""


class Overloaded(AdsumError):
    """A bounded queue is full and nothing was done. The caller may retry after `retry_after` seconds."""

    def __init__(self, queue: str, retry_after: float = 1.0) -> None:
        super().__init__(f"{queue} is full")
        self.retry_after = retry_after


class ProbeUnavailable(AdsumError):
    """The registry lacks what a probe needs, such as file descriptors. This says nothing about the instance."""


class StoreUnavailable(AdsumError):
    """The store can't commit now. The caller may retry after `retry_after` seconds.

    Nothing was written unless the message says so.
    """

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class KeeperUnavailable(AdsumError):
    """The keeper of the instance does not answer, so the lease may not be renewed. Retry here or at another node."""

    retry_after = 1.0


class StoreOpenFailed(AdsumError):
    """The store can't be opened: another daemon uses it, its schema is newer, or a permission is missing."""


class StoreConflict(AdsumError):
    """The store has moved past the revision that a batch was decided on. The caller decides on a newer snapshot."""
