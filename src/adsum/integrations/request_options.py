"""Options of a single request: tries, timeouts, hash key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from adsum.client.calls.options import CallOptions
from adsum.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Options of one request; None leaves an option to the channel.

    `tries`, `try_timeout` and `deadline` (seconds) are those of `CallOptions`. `hash_key` is the key by which hash
    policies choose. `idempotent` says whether the request may be sent twice, whatever its method is.
    """

    tries: int | None = None
    try_timeout: float | None = None
    deadline: float | None = None
    hash_key: bytes | str | None = None
    idempotent: bool | None = None

    def merged(self, given: Mapping[str, Any]) -> RequestOptions:
        """Returns these options with the given ones replaced. Raises `Invalid` for an unknown name."""
        unknown = given.keys() - _NAMES
        if unknown:
            raise Invalid(
                f"adsum.{min(unknown)}", f"is not a request option; the options are {', '.join(sorted(_NAMES))}"
            )
        return replace(self, **given) if given else self

    def applied_to(self, options: CallOptions) -> CallOptions:
        """Returns the call options with these request options applied. Raises `Invalid`."""
        if self.tries is None and self.try_timeout is None and self.deadline is None:
            return options
        return CallOptions(
            options.tries if self.tries is None else self.tries,
            options.try_timeout if self.try_timeout is None else self.try_timeout,
            options.deadline if self.deadline is None else self.deadline,
        )


_NAMES: Final = frozenset(field.name for field in fields(RequestOptions))
_DEFAULT: Final = RequestOptions()
_current: ContextVar[RequestOptions] = ContextVar("adsum_request_options", default=_DEFAULT)


@contextmanager
def request_options(**options: Any) -> Iterator[None]:
    """Sets options for the requests made in this block by this task or thread. Blocks nest. Raises `Invalid`.

    with request_options(deadline=2.0, hash_key=user): …
    """
    token = _current.set(_current.get().merged(options))
    try:
        yield
    finally:
        _current.reset(token)


def current_options(given: Mapping[str, Any] | None = None) -> RequestOptions:
    """Returns the options of this task or thread, with the given ones replaced. Raises `Invalid`."""
    return _current.get().merged(given) if given else _current.get()
