"""Arguments and options that several commands share: services, instances, durations; completed from the registry."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from adsum.core import validation
from adsum.core.durations import format_duration, parse_duration
from adsum.core.errors import AdsumError, Invalid

if TYPE_CHECKING:
    from adsum.client.native.api import RegistryApi

COMPLETION_TIMEOUT: Final = 1.0
"""Seconds that a completion waits for the registry; after that nothing is completed."""
MAX_SERVICES_NAMED: Final = 8
"""The most services that an error names."""

if TYPE_CHECKING:
    Type = click.ParamType[Any]
else:
    Type = click.ParamType

C = TypeVar("C", bound=Callable[..., Any])


class InstanceRef(NamedTuple):
    """An instance as it is written on the command line: SERVICE/ID. The id is empty for a service alone."""

    service: str
    id: str

    def __str__(self) -> str:
        return f"{self.service}/{self.id}" if self.id else self.service


class ServiceType(Type):
    """The type of an argument that names a service; with `with_id`, an instance as SERVICE/ID, or SERVICE alone."""

    name = "service"

    def __init__(self, *, with_id: bool = False) -> None:
        self._with_id = with_id

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, InstanceRef):
            return value
        service, slash, id = str(value).partition("/")
        try:
            validation.service_name("the name of a service", service)
            if id:
                validation.instance_id("the id of an instance", id)
        except Invalid as error:
            self.fail(f"{error.field} {error.problem}", param, ctx)
        if slash and not (self._with_id and id):
            problem = "must be SERVICE/ID" if self._with_id else "must be the name of a service, without an id"
            self.fail(problem, param, ctx)
        return InstanceRef(service, id) if self._with_id else service

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,
        incomplete: str,
    ) -> list[click.shell_completion.CompletionItem]:
        names = complete(lambda api: _candidates(api, incomplete, with_ids=self._with_id))
        return [click.shell_completion.CompletionItem(name) for name in names if name.startswith(incomplete)]


class DurationType(Type):
    """The type of a duration such as 30, 5s, 1m30s or 2h, in seconds, from `minimum` to `maximum`."""

    name = "duration"

    def __init__(self, minimum: float, maximum: float) -> None:
        self._minimum, self._maximum = minimum, maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            duration = parse_duration(str(value))
        except Invalid as error:
            self.fail(error.problem, param, ctx)
        if not self._minimum <= duration <= self._maximum:
            shortest, longest = format_duration(self._minimum), format_duration(self._maximum)
            self.fail(f"must be from {shortest} to {longest}, not {value}", param, ctx)
        return duration


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON in the format of the registry's API.")


def reason_option(text: str) -> Callable[[C], C]:
    """Returns the option `--reason`; `text` is its help."""
    return click.option("--reason", default="", metavar="TEXT", help=f"{text}; recorded in the history.")


def unknown_service(service: str, services: Iterable[str]) -> str:
    """Returns the error sentence for a service without an instance; it suggests similar names."""
    names = sorted(services)
    if service in names:
        return f"no instance of {service!r} is registered any more; `adsum history {service}` shows why"
    near = difflib.get_close_matches(service, names, 3, 0.6)
    if near:
        return f"no service {service!r} is registered; did you mean {' or '.join(near)}?"
    if not names:
        return f"no service {service!r} is registered; the registry is empty"
    more = f" and {len(names) - MAX_SERVICES_NAMED} more" if len(names) > MAX_SERVICES_NAMED else ""
    return f"no service {service!r} is registered; registered are {', '.join(names[:MAX_SERVICES_NAMED])}{more}"


async def _candidates(api: RegistryApi, incomplete: str, *, with_ids: bool) -> Sequence[str]:
    """Returns the instances of a service if its name is complete, else the names of all services."""
    service, slash, _ = incomplete.partition("/")
    if slash and with_ids:
        return [f"{service}/{instance.id}" for instance in (await api.service(service)).instances]
    ending = "/" if with_ids else ""
    return [service.name + ending for service in (await api.services()).services]


def complete(work: Callable[[RegistryApi], Awaitable[Sequence[str]]]) -> Sequence[str]:
    """Returns the candidates from the registry; none if it does not answer within `COMPLETION_TIMEOUT`."""
    from adsum.client.client import Client

    async def go() -> Sequence[str]:
        async with asyncio.timeout(COMPLETION_TIMEOUT), Client(os.environ.get("ADSUM_URL"), cache=False) as client:
            return await work(client.api)

    try:
        return asyncio.run(go())
    except (AdsumError, OSError, TimeoutError):
        return []
