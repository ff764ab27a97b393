"""Every way in which a rule can say no.

Rules raise these; the edges translate them: a dialect into its own answers (one table at its top), the CLI into one
sentence. Nothing in here knows HTTP.
"""

from __future__ import annotations


class AdsumError(Exception):
    """The base of every error that Adsum raises on purpose."""


class Invalid(AdsumError):
    """A value breaks an invariant.

    `field` is the dotted path of the value as the user wrote it (`instance.port`, `checks[0].interval`), `problem` one
    clause that says what would be right.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem

    def prefixed(self, prefix: str) -> Invalid:
        """The same error seen from the value that contains this one."""
        joint = "" if self.field.startswith("[") else "."
        return Invalid(f"{prefix}{joint}{self.field}", self.problem)


class UnknownInstance(AdsumError):
    """No instance of that service has that id."""

    def __init__(self, service: str, id: str) -> None:
        super().__init__(f"no instance {id!r} of service {service!r} is registered")
        self.service = service
        self.id = id


class UnknownDocument(AdsumError):
    """Nothing of that kind and name was declared."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no {kind} {name!r} is declared")


class LeaseLost(AdsumError):
    """Somebody else registered the instance since: the lease is no longer this holder's."""

    def __init__(self, service: str, id: str) -> None:
        super().__init__(f"the lease of {service!r} instance {id!r} is held by a later registration")
        self.service = service
        self.id = id


class RegistrationConflict(AdsumError):
    """A live process has the id or the place that a registration requests."""


class ServiceNotEmpty(AdsumError):
    """A service that is to be forgotten has instances."""

    def __init__(self, service: str, count: int) -> None:
        lists = "1 instance" if count == 1 else f"{count} instances"
        super().__init__(f"{service!r} lists {lists}: only a service without one can be forgotten; deregister first")


class CatalogFull(AdsumError):
    """A bound of the catalog is reached; nothing was registered."""


class Overloaded(AdsumError):
    """A bounded queue is full; nothing was done; try again after `retry_after` seconds."""

    def __init__(self, queue: str, retry_after: float = 1.0) -> None:
        super().__init__(f"{queue} is full")
        self.retry_after = retry_after


class ProbeUnavailable(AdsumError):
    """The registry itself could not probe, for a shortage of its own: that says nothing about the instance."""


class StoreUnavailable(AdsumError):
    """The store can't commit now; nothing was written, unless it says so; try again after `retry_after` seconds."""

    def __init__(self, reason: str, retry_after: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class KeeperUnavailable(AdsumError):
    """Who keeps the instance can't be asked, so nothing is known to be renewed; try again, or at another node."""

    retry_after = 1.0


class StoreOpenFailed(AdsumError):
    """The store can't be opened as asked: another daemon has it, a schema from the future, no permission."""


class StoreConflict(AdsumError):
    """The store moved past the basis that a batch was decided on: decide again on a fresher snapshot."""
