from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from adsum.client.client import Client
from adsum.client.errors import RegistryRefused
from adsum.client.native.api import GOODBYE_TIMEOUT
from adsum.client.registration import instance_address
from adsum.client.registration.registrar import DRAIN_ANSWER_MARGIN, MIN_STOP_TIMEOUT, STOP_TIMEOUT, Registrar
from adsum.client.registration.registrar_state import MOVES, RegistrarEvent, RegistrarState
from adsum.client.registration.renewals import MAX_RENEWED_TTL
from adsum.core.catalog.takeover import Takeover
from adsum.core.errors import Invalid, RegistrationConflict
from adsum.core.identity import process_name
from adsum.core.liveness.heartbeats import DEFAULT_DRAIN_WAIT
from adsum.core.model import Check, CheckKind, Instance, Registration
from adsum.wire import ConsumerView, RegistrationBody
from tests.client.fakes import ScriptedSource
from tests.support.fakes import FakeClock, run_until_idle


class RegistrarFixture:
    """A client that registers at a scripted source."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.source = ScriptedSource()
        self.client = Client(cache=False, clock=self.clock, source=self.source)

    def register(self, port: int = 8000, **options: Any) -> Registrar:
        return self.client.register("orders", port, **{"id": f"o{port}", **options})

    def takeover(self) -> Takeover:
        """Returns the takeover of the latest registration."""
        return self.source.listed["orders", "o8000"].takeover

    def requests(self) -> list[str]:
        """Returns the requests since the last call of this, without those for the address."""
        calls = [call for call in self.source.calls if call != "address"]
        self.source.calls.clear()
        return calls


@pytest.fixture
async def fixture() -> AsyncIterator[RegistrarFixture]:
    fixture = RegistrarFixture()
    yield fixture
    await fixture.client.close()
    assert fixture.source.closed


async def test_an_instance_is_registered_renewed_drained_and_deregistered(fixture: RegistrarFixture) -> None:
    async with fixture.register(check="http:/health", tags=["blue"]) as registrar:
        assert registrar.registered
        body = fixture.source.listed["orders", "o8000"]
        assert (body.address, body.port, body.tags, body.checks[0].path) == ("10.1.2.3", 8000, ("blue",), "/health")
        assert fixture.requests() == ["register o8000"]
        await fixture.clock.advance(5.6)
        assert fixture.requests() == ["renew o8000"]
    assert fixture.requests() == ["override o8000", "deregister o8000"]
    (override,) = fixture.source.overrides
    assert (override.status, override.wait, override.holder) == ("draining", DEFAULT_DRAIN_WAIT, body.holder)
    assert registrar.state is RegistrarState.STOPPED


async def test_a_registration_is_registered_as_it_is_and_gets_a_holder(fixture: RegistrarFixture) -> None:
    instance = Instance("orders", "o8000", "10.0.0.9", 8000, zone="z1", weight=3)
    registration = Registration(instance, 5.0, checks=(Check("tcp", CheckKind.TCP),))
    await fixture.client.registrar(registration, address="10.0.0.9").start()
    body = fixture.source.listed["orders", "o8000"]
    assert process_name(body.holder)
    assert body == RegistrationBody.from_registration(replace(registration, holder=body.holder))


async def test_all_leases_of_a_process_are_renewed_in_one_request(fixture: RegistrarFixture) -> None:
    for port in (8000, 8001, 8002):
        await fixture.register(port).start()
    fixture.requests()
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000 o8001 o8002"]


async def test_the_shortest_ttl_determines_the_interval_and_a_long_ttl_is_bounded(fixture: RegistrarFixture) -> None:
    await fixture.register(8000, ttl=3600.0).start()
    fixture.requests()
    await fixture.clock.advance(MAX_RENEWED_TTL / 3 * 1.1 + 0.1)
    assert fixture.requests() == ["renew o8000"]
    await fixture.register(8001, ttl=3.0).start()
    fixture.requests()
    await fixture.clock.advance(1.2)
    assert fixture.requests() == ["renew o8000 o8001"]


async def test_a_short_lease_is_renewed_in_time_again_after_failed_renewals(
    fixture: RegistrarFixture,
) -> None:
    await fixture.register(ttl=3.0).start()
    for _ in range(8):
        fixture.source.down = True
        await fixture.clock.advance(30.0)
        fixture.source.down = False
        fixture.requests()
        await fixture.clock.advance(1.2)
        assert "renew o8000" in fixture.requests()


async def test_an_instance_without_a_lease_is_still_checked_at_each_renewal(fixture: RegistrarFixture) -> None:
    await fixture.register(ttl=None).start()
    fixture.source.listed.clear()
    fixture.requests()
    await fixture.clock.advance(MAX_RENEWED_TTL / 3 * 1.1 + 0.1)
    assert fixture.requests() == ["renew o8000", "register o8000"]


async def test_a_registry_that_is_down_never_stops_a_program_from_starting(
    fixture: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    fixture.source.down = True
    registrar = fixture.register()
    await registrar.start(wait=0.01)
    assert not registrar.registered
    await fixture.clock.advance(60.0)
    tries = len(fixture.source.calls)
    assert 60 / 5 - 2 <= tries <= 60 / 0.25
    fixture.source.down = False
    await fixture.clock.advance(5.0)
    assert registrar.state is RegistrarState.REGISTERED
    assert "goes on in the background" in caplog.text


async def test_an_instance_that_the_registry_lost_is_registered_again_at_once(fixture: RegistrarFixture) -> None:
    registrar = fixture.register()
    await registrar.start()
    fixture.source.listed.clear()
    fixture.requests()
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000", "register o8000"]
    assert registrar.registered
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000"]


async def test_a_new_epoch_makes_the_registrar_register_again_even_if_the_lease_is_held(
    fixture: RegistrarFixture,
) -> None:
    await fixture.register().start()
    fixture.source.epoch = "e2"
    fixture.requests()
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000", "register o8000"]
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000"]


async def test_a_superseded_registrar_waits_and_is_listed_again_when_the_id_is_free(
    fixture: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    async with fixture.register() as registrar:
        assert fixture.takeover() is Takeover.USUAL
        fixture.source.superseded.add("o8000")
        fixture.source.refuse = RegistrationConflict(
            "the id orders/o8000 belongs to a live process at http://10.0.0.9:80"
        )
        await fixture.clock.advance(6.0)
        assert registrar.state is RegistrarState.WAITING
        assert "http://10.0.0.9:80" in registrar.conflict
        fixture.requests()
        await fixture.clock.advance(60.0)
        assert 60 / 5 - 2 <= len(fixture.requests()) <= 60 / 0.25
        assert caplog.text.count("trying again until it is free") == 1
        fixture.source.superseded.clear()
        fixture.source.refuse = None
        await fixture.clock.advance(5.0)
        assert (registrar.state, registrar.conflict) == (RegistrarState.REGISTERED, "")
        assert fixture.takeover() is Takeover.NEVER
    assert ("orders", "o8000") not in fixture.source.listed


async def test_an_id_of_a_live_process_is_no_error_and_is_tried_again_every_few_seconds(
    fixture: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    fixture.source.refuse = RegistrationConflict("the id orders/o8000 belongs to a live process at http://10.0.0.9:80")
    registrar = fixture.register()
    await registrar.start()
    assert registrar.state is RegistrarState.WAITING
    assert "http://10.0.0.9:80" in caplog.text
    await fixture.clock.advance(20.0)
    fixture.source.refuse = None
    await fixture.clock.advance(5.0)
    assert registrar.registered
    assert fixture.takeover() is Takeover.USUAL, "it has never been listed"


async def test_a_registration_after_a_loss_takes_nothing_from_a_live_process(fixture: RegistrarFixture) -> None:
    await fixture.register(take_over=True).start()
    assert fixture.takeover() is Takeover.FORCE
    fixture.source.listed.clear()
    await fixture.clock.advance(6.0)
    assert fixture.takeover() is Takeover.NEVER


async def test_a_later_registrar_of_the_same_program_takes_the_id(fixture: RegistrarFixture) -> None:
    earlier, later = fixture.register(), fixture.register(port=8001, id="o8000")
    await earlier.start()
    process = process_name(fixture.source.listed["orders", "o8000"].holder)
    await later.start()
    assert process_name(fixture.source.listed["orders", "o8000"].holder) == process
    assert (earlier.state, later.state) == (RegistrarState.SUPERSEDED, RegistrarState.REGISTERED)
    fixture.requests()
    await fixture.clock.advance(60.0)
    assert not [call for call in fixture.requests() if call.startswith("register")]
    await earlier.stop()
    assert ("orders", "o8000") in fixture.source.listed


async def test_renewals_go_on_after_the_registry_came_back(fixture: RegistrarFixture) -> None:
    registrar = fixture.register()
    await registrar.start()
    fixture.source.down = True
    await fixture.clock.advance(60.0)
    assert registrar.registered, "failed renewals do not end the registration"
    fixture.source.down = False
    fixture.requests()
    await fixture.clock.advance(6.0)
    assert "renew o8000" in fixture.requests()


async def test_a_refused_first_registration_raises_and_is_not_tried_again(fixture: RegistrarFixture) -> None:
    for refusal in (Invalid("address", "is never an instance's"), RegistryRefused(507, "the catalog is full")):
        fixture.source.refuse = refusal
        registrar = fixture.register()
        with pytest.raises(type(refusal)):
            await registrar.start()
        fixture.requests()
        await fixture.clock.advance(300.0)
        assert fixture.requests() == []
        assert registrar.state is RegistrarState.STOPPED


async def test_a_malformed_registration_is_refused_before_any_request(
    fixture: RegistrarFixture,
) -> None:
    wrongs: list[dict[str, Any]] = [{"port": 0}, {"weight": -1}, {"check": "ftp"}, {"ttl": 0.1}, {"id": "no good"}]
    for wrong in wrongs:
        with pytest.raises(Invalid):
            fixture.register(**{"port": 8000, **wrong})
    assert fixture.source.calls == []


async def test_a_drain_reports_whether_every_consumer_has_acknowledged(fixture: RegistrarFixture) -> None:
    registrar = fixture.register()
    await registrar.start()
    assert (await registrar.drain(10.0, "deploy")).done
    assert fixture.source.overrides[-1].wait == 10.0
    assert fixture.source.overrides[-1].reason == "deploy"
    fixture.source.unacknowledged = 2
    fixture.source.waiting = [ConsumerView("checkout[7]@web1", "10.0.0.7:4711", "n1", "it has not acknowledged")]
    drained = await registrar.drain()
    assert (drained.done, drained.unacknowledged) == (False, 2)
    assert str(drained) == (
        "2 consumers have not confirmed in time: checkout[7]@web1 at 10.0.0.7:4711 (it has not acknowledged), "
        "and 1 more"
    )
    fixture.source.down = True
    drained = await registrar.drain()
    assert (drained.done, drained.unacknowledged) == (False, 0)
    assert "down" in drained.reason


async def test_a_drain_names_the_consumers_that_were_lost(
    fixture: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    registrar = fixture.register()
    await registrar.start()
    fixture.source.lost = [ConsumerView("laptop", "10.0.0.9:5", reason="no heartbeat for 8 s")]
    drained = await registrar.drain()
    assert (drained.done, drained.lost_count, [consumer.name for consumer in drained.lost]) == (True, 1, ["laptop"])
    assert "1 lost consumer was not waited for: laptop at 10.0.0.9:5 (no heartbeat for 8 s)" in caplog.text


async def test_an_instance_that_leaves_during_its_registration_is_drained(fixture: RegistrarFixture) -> None:
    fixture.source.answering.clear()
    registrar = fixture.register()
    starting = asyncio.create_task(registrar.start())
    await run_until_idle()
    leaving = asyncio.create_task(registrar.__aexit__(None, None, None))
    await run_until_idle()
    assert not leaving.done()
    fixture.source.answering.set()
    await asyncio.gather(starting, leaving)
    assert fixture.requests() == ["register o8000", "override o8000", "deregister o8000"]


async def test_a_draining_instance_still_drains_after_the_registry_lost_its_state(fixture: RegistrarFixture) -> None:
    registrar = fixture.register()
    await registrar.start()
    await registrar.drain()
    fixture.source.listed.clear()
    fixture.requests()
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000", "register o8000", "override o8000"]


async def test_a_drain_at_a_registry_that_lost_its_state_lists_the_instance_again_first(
    fixture: RegistrarFixture,
) -> None:
    registrar = fixture.register()
    await registrar.start()
    fixture.source.listed.clear()
    fixture.requests()
    assert (await registrar.drain()).done
    assert fixture.requests() == ["override o8000", "register o8000", "override o8000"]


async def test_stopping_ends_even_if_the_registry_is_down(
    fixture: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    async with fixture.register() as registrar:
        fixture.source.down = True
    assert registrar.state is RegistrarState.STOPPED
    assert "leave by expiry" in caplog.text
    await registrar.stop()


def test_a_program_shuts_down_before_docker_kills_it_even_if_the_registry_hangs() -> None:
    longest = DEFAULT_DRAIN_WAIT + DRAIN_ANSWER_MARGIN + MIN_STOP_TIMEOUT + GOODBYE_TIMEOUT
    assert longest <= 9.5, "`docker stop` kills after 10 s"


async def test_a_drain_without_an_answer_leaves_little_time_to_deregister(
    fixture: RegistrarFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(fixture.source, "override", hang)
    monkeypatch.setattr(fixture.source, "deregister", hang)
    registrar = fixture.register(drain_wait=0.01)
    begun = asyncio.get_running_loop().time()
    async with registrar:
        pass
    assert registrar.state is RegistrarState.STOPPED
    assert (
        asyncio.get_running_loop().time() - begun < 0.01 + DRAIN_ANSWER_MARGIN + MIN_STOP_TIMEOUT + 0.5 < STOP_TIMEOUT
    )


async def test_closing_the_client_deregisters_what_is_registered() -> None:
    fixture = RegistrarFixture()
    await fixture.register().start()
    await fixture.client.close()
    await fixture.client.close()
    assert fixture.source.listed == {}
    with pytest.raises(RuntimeError, match="closed"):
        fixture.register()


async def test_the_address_is_the_argument_then_the_variable_then_the_outbound_one(
    fixture: RegistrarFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSUM_ADDRESS", "10.9.9.9")
    await fixture.register(8000, address="10.8.8.8").start()
    await fixture.register(8001).start()
    monkeypatch.delenv("ADSUM_ADDRESS")
    await fixture.register(8002).start()
    assert [body.address for body in fixture.source.listed.values()] == ["10.8.8.8", "10.9.9.9", "10.1.2.3"]


async def test_an_instance_moves_when_its_host_loses_its_address_and_not_before(
    fixture: RegistrarFixture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    had = {"10.1.2.3", "10.0.7.9"}
    monkeypatch.setattr(instance_address, "is_local", had.__contains__)
    registrar = fixture.register()
    await registrar.start()
    fixture.source.address = "10.0.7.9"  # The route to the registry has changed, but this host still has its address.
    fixture.requests()
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000"]
    had.remove("10.1.2.3")
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000", "register o8000"]
    assert registrar.registered
    assert fixture.source.listed["orders", "o8000"].address == "10.0.7.9"
    assert "address of this host has changed" in caplog.text
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000"]


async def test_an_instance_that_the_registry_lost_is_registered_at_the_current_address(
    fixture: RegistrarFixture,
) -> None:
    await fixture.register().start()
    fixture.source.listed.clear()
    fixture.source.address = "10.0.7.9"
    await fixture.clock.advance(6.0)
    assert fixture.source.listed["orders", "o8000"].address == "10.0.7.9"


async def test_a_configured_address_never_changes(fixture: RegistrarFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_address, "is_local", lambda _: False)
    await fixture.register(address="192.0.2.7").start()
    fixture.requests()
    await fixture.clock.advance(6.0)
    assert fixture.requests() == ["renew o8000"]


async def test_each_registrar_holds_its_own_lease(fixture: RegistrarFixture) -> None:
    await fixture.register(8000).start()
    await fixture.register(8001).start()
    holders = {body.holder for body in fixture.source.listed.values()}
    assert len(holders) == 2
    assert len({process_name(holder) for holder in holders} - {""}) == 1, "they are one process"


async def test_an_unexpected_error_does_not_end_renewals(
    fixture: RegistrarFixture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await fixture.register().start()

    async def fail(*_: object) -> None:
        raise ValueError("surprise")

    with monkeypatch.context() as patch:
        patch.setattr(fixture.source, "renew", fail)
        await fixture.clock.advance(30.0)
    fixture.requests()
    await fixture.clock.advance(10.0)
    assert "renew o8000" in fixture.requests()
    assert "surprise" in caplog.text
    await run_until_idle()


def test_a_registrar_can_be_stopped_in_every_state_and_final_states_are_final() -> None:
    assert all(MOVES[state, RegistrarEvent.STOPPED] is RegistrarState.STOPPED for state in RegistrarState)
    for final in (RegistrarState.SUPERSEDED, RegistrarState.STOPPED):
        assert {after for (before, _), after in MOVES.items() if before is final} == {RegistrarState.STOPPED}
