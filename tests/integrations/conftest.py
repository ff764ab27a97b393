"""Fixtures of the integrations: instances, and a caller of each HTTP library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from adsum.balance.load_tracker import EndpointLoad
from adsum.client.calls.channel import Channel
from adsum.client.calls.pick import Pick
from adsum.core.model import Endpoint, Instance
from tests.client.fakes import ScriptedSource, full_update
from tests.integrations.callers import CALLERS, LibraryCaller, options
from tests.integrations.servers import HERE, Fleet

Make = Callable[..., LibraryCaller]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.stop()


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The end of each pick that counts for its endpoint: the endpoint's id, and whether it succeeded."""
    outcomes: list[tuple[str, bool]] = []
    record_result = Channel.record_result

    def record(self: Channel, pick: Pick, load: EndpointLoad, ok: bool, latency: float | None) -> None:
        outcomes.append((pick.endpoint.id, ok))
        record_result(self, pick, load, ok, latency)

    monkeypatch.setattr(Channel, "record_result", record)
    return outcomes


def instance(id: str, port: int, scheme: str = "http") -> Endpoint:
    return Endpoint(Instance("orders", id, HERE, port, scheme=scheme))


@pytest.fixture(params=sorted(CALLERS))
async def make(request: pytest.FixtureRequest, fleet: Fleet) -> AsyncIterator[Make]:
    """Makes a caller of each library in turn that knows these endpoints of orders. Closes it in the end."""
    callers: list[LibraryCaller] = []

    def make(*endpoints: Endpoint, source: ScriptedSource | None = None, **given: Any) -> LibraryCaller:
        if source is None:
            source = ScriptedSource()
            source.emit(full_update(1, *endpoints))
        caller = CALLERS[request.param](source, **{"channel": options(), **given})
        callers.append(caller)
        return caller

    yield make
    for caller in callers:
        await caller.close()
