from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

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
from adsum.wire import ConsumerView
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
        """What the latest registration was allowed to take."""
        return self.source.listed["orders", "o8000"].takeover

    def asked(self) -> list[str]:
        """What was asked since the last time, without looking the address up."""
        calls = [call for call in self.source.calls if call != "address"]
        self.source.calls.clear()
        return calls


@pytest.fixture
async def providing() -> AsyncIterator[RegistrarFixture]:
    it = RegistrarFixture()
    yield it
    await it.client.close()
    assert it.source.closed


async def test_an_instance_is_registered_renewed_drained_and_deregistered(providing: RegistrarFixture) -> None:
    async with providing.register(check="http:/health", tags=["blue"]) as registrar:
        assert registrar.registered
        body = providing.source.listed["orders", "o8000"]
        assert (body.address, body.port, body.tags, body.checks[0].path) == ("10.1.2.3", 8000, ("blue",), "/health")
        assert providing.asked() == ["register o8000"]
        await providing.clock.advance(5.6)
        assert providing.asked() == ["renew o8000"]
    assert providing.asked() == ["override o8000", "deregister o8000"]
    (override,) = providing.source.overrides
    assert (override.status, override.wait, override.holder) == ("draining", DEFAULT_DRAIN_WAIT, body.holder)
    assert registrar.state is RegistrarState.STOPPED


async def test_all_leases_of_a_process_are_renewed_in_one_request(providing: RegistrarFixture) -> None:
    for port in (8000, 8001, 8002):
        await providing.register(port).start()
    providing.asked()
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000 o8001 o8002"]


async def test_the_shortest_ttl_sets_the_pace_and_the_longest_has_a_bound(providing: RegistrarFixture) -> None:
    await providing.register(8000, ttl=3600.0).start()
    providing.asked()
    await providing.clock.advance(MAX_RENEWED_TTL / 3 * 1.1 + 0.1)
    assert providing.asked() == ["renew o8000"]
    await providing.register(8001, ttl=3.0).start()
    providing.asked()
    await providing.clock.advance(1.2)
    assert providing.asked() == ["renew o8000 o8001"]


async def test_a_short_lease_is_renewed_at_its_pace_too_when_it_could_not_be_for_a_while(
    providing: RegistrarFixture,
) -> None:
    await providing.register(ttl=3.0).start()
    for _ in range(8):
        providing.source.down = True
        await providing.clock.advance(30.0)
        providing.source.down = False
        providing.asked()
        await providing.clock.advance(1.2)
        assert "renew o8000" in providing.asked()


async def test_without_a_lease_it_is_asked_after_all_the_same(providing: RegistrarFixture) -> None:
    await providing.register(ttl=None).start()
    providing.source.listed.clear()
    providing.asked()
    await providing.clock.advance(MAX_RENEWED_TTL / 3 * 1.1 + 0.1)
    assert providing.asked() == ["renew o8000", "register o8000"]


async def test_a_registry_that_is_down_never_stops_a_program_from_starting(
    providing: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    providing.source.down = True
    registrar = providing.register()
    await registrar.start(wait=0.01)
    assert not registrar.registered
    await providing.clock.advance(60.0)
    tries = len(providing.source.calls)
    assert 60 / 5 - 2 <= tries <= 60 / 0.25
    providing.source.down = False
    await providing.clock.advance(5.0)
    assert registrar.state is RegistrarState.REGISTERED
    assert "goes on in the background" in caplog.text


async def test_a_lease_that_the_registry_forgot_is_registered_again_at_once(providing: RegistrarFixture) -> None:
    registrar = providing.register()
    await registrar.start()
    providing.source.listed.clear()
    providing.asked()
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000", "register o8000"]
    assert registrar.registered
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000"]


async def test_a_new_epoch_is_registered_in_even_if_the_lease_seems_to_be_there(providing: RegistrarFixture) -> None:
    await providing.register().start()
    providing.source.epoch = "e2"
    providing.asked()
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000", "register o8000"]
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000"]


async def test_who_was_superseded_asks_for_what_is_free_only_and_is_listed_again_when_it_is(
    providing: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    async with providing.register() as registrar:
        assert providing.takeover() is Takeover.USUAL
        providing.source.superseded.add("o8000")
        providing.source.refuse = RegistrationConflict(
            "the id orders/o8000 belongs to a living process at http://10.0.0.9:80"
        )
        await providing.clock.advance(6.0)
        assert registrar.state is RegistrarState.WAITING
        assert "http://10.0.0.9:80" in registrar.conflict
        providing.asked()
        await providing.clock.advance(60.0)
        assert 60 / 5 - 2 <= len(providing.asked()) <= 60 / 0.25
        assert caplog.text.count("asking again until it is free") == 1
        providing.source.superseded.clear()
        providing.source.refuse = None
        await providing.clock.advance(5.0)
        assert (registrar.state, registrar.conflict) == (RegistrarState.REGISTERED, "")
        assert providing.takeover() is Takeover.NEVER
    assert ("orders", "o8000") not in providing.source.listed


async def test_an_id_that_a_live_process_has_is_no_error_and_is_asked_for_within_seconds(
    providing: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    providing.source.refuse = RegistrationConflict(
        "the id orders/o8000 belongs to a living process at http://10.0.0.9:80"
    )
    registrar = providing.register()
    await registrar.start()
    assert registrar.state is RegistrarState.WAITING
    assert "http://10.0.0.9:80" in caplog.text
    await providing.clock.advance(20.0)
    providing.source.refuse = None
    await providing.clock.advance(5.0)
    assert registrar.registered
    assert providing.takeover() is Takeover.USUAL, "it has never been listed"


async def test_a_lease_that_was_forgotten_takes_nothing_from_a_live_process(providing: RegistrarFixture) -> None:
    await providing.register(take_over=True).start()
    assert providing.takeover() is Takeover.FORCE
    providing.source.listed.clear()
    await providing.clock.advance(6.0)
    assert providing.takeover() is Takeover.NEVER


async def test_a_program_is_one_process_and_takes_its_own_id_from_itself(providing: RegistrarFixture) -> None:
    earlier, later = providing.register(), providing.register(port=8001, id="o8000")
    await earlier.start()
    process = process_name(providing.source.listed["orders", "o8000"].holder)
    await later.start()
    assert process_name(providing.source.listed["orders", "o8000"].holder) == process
    assert (earlier.state, later.state) == (RegistrarState.SUPERSEDED, RegistrarState.REGISTERED)
    providing.asked()
    await providing.clock.advance(60.0)
    assert not [call for call in providing.asked() if call.startswith("register")]
    await earlier.stop()
    assert ("orders", "o8000") in providing.source.listed


async def test_renewals_go_on_after_the_registry_came_back(providing: RegistrarFixture) -> None:
    registrar = providing.register()
    await registrar.start()
    providing.source.down = True
    await providing.clock.advance(60.0)
    assert registrar.registered, "not being heard is no reason to give up"
    providing.source.down = False
    providing.asked()
    await providing.clock.advance(6.0)
    assert "renew o8000" in providing.asked()


async def test_a_registration_that_is_wrong_is_said_at_once_and_not_tried_again(providing: RegistrarFixture) -> None:
    for refusal in (Invalid("address", "is never an instance's"), RegistryRefused(507, "the catalog is full")):
        providing.source.refuse = refusal
        registrar = providing.register()
        with pytest.raises(type(refusal)):
            await registrar.start()
        providing.asked()
        await providing.clock.advance(300.0)
        assert providing.asked() == []
        assert registrar.state is RegistrarState.STOPPED


async def test_a_registration_that_is_malformed_is_refused_before_anything_is_asked(
    providing: RegistrarFixture,
) -> None:
    wrongs: list[dict[str, Any]] = [{"port": 0}, {"weight": -1}, {"check": "ftp"}, {"ttl": 0.1}, {"id": "no good"}]
    for wrong in wrongs:
        with pytest.raises(Invalid):
            providing.register(**{"port": 8000, **wrong})
    assert providing.source.calls == []


async def test_a_drain_says_whether_everybody_knows(providing: RegistrarFixture) -> None:
    registrar = providing.register()
    await registrar.start()
    assert (await registrar.drain(10.0, "deploy")).done
    assert providing.source.overrides[-1].wait == 10.0
    assert providing.source.overrides[-1].reason == "deploy"
    providing.source.unacknowledged = 2
    providing.source.waiting = [ConsumerView("checkout[7]@web1", "10.0.0.7:4711", "n1", "it has not acknowledged")]
    drained = await registrar.drain()
    assert (drained.done, drained.unacknowledged) == (False, 2)
    assert str(drained) == (
        "2 consumers have not confirmed in time: checkout[7]@web1 at 10.0.0.7:4711 (it has not acknowledged), "
        "and 1 more"
    )
    providing.source.down = True
    drained = await registrar.drain()
    assert (drained.done, drained.unacknowledged) == (False, 0)
    assert "down" in drained.reason


async def test_a_drain_names_the_consumers_that_were_lost(
    providing: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    registrar = providing.register()
    await registrar.start()
    providing.source.lost = [ConsumerView("laptop", "10.0.0.9:5", reason="nothing was heard of it for 8 s")]
    drained = await registrar.drain()
    assert (drained.done, drained.lost_count, [each.name for each in drained.lost]) == (True, 1, ["laptop"])
    assert "1 lost consumer was not waited for: laptop at 10.0.0.9:5 (nothing was heard of it for 8 s)" in caplog.text


async def test_who_leaves_while_it_is_being_registered_is_drained_all_the_same(providing: RegistrarFixture) -> None:
    providing.source.answering.clear()
    registrar = providing.register()
    starting = asyncio.create_task(registrar.start())
    await run_until_idle()
    leaving = asyncio.create_task(registrar.__aexit__(None, None, None))
    await run_until_idle()
    assert not leaving.done()
    providing.source.answering.set()
    await asyncio.gather(starting, leaving)
    assert providing.asked() == ["register o8000", "override o8000", "deregister o8000"]


async def test_who_was_draining_drains_on_after_the_registry_lost_its_state(providing: RegistrarFixture) -> None:
    registrar = providing.register()
    await registrar.start()
    await registrar.drain()
    providing.source.listed.clear()
    providing.asked()
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000", "register o8000", "override o8000"]


async def test_a_drain_at_a_registry_that_lost_its_state_is_heard_by_those_who_still_show_us(
    providing: RegistrarFixture,
) -> None:
    registrar = providing.register()
    await registrar.start()
    providing.source.listed.clear()
    providing.asked()
    assert (await registrar.drain()).done
    assert providing.asked() == ["override o8000", "register o8000", "override o8000"]


async def test_stopping_while_the_registry_is_down_ends_all_the_same(
    providing: RegistrarFixture, caplog: pytest.LogCaptureFixture
) -> None:
    async with providing.register() as registrar:
        providing.source.down = True
    assert registrar.state is RegistrarState.STOPPED
    assert "leave by expiry" in caplog.text
    await registrar.stop()


def test_a_program_ends_before_it_is_killed_though_the_registry_hangs() -> None:
    longest = DEFAULT_DRAIN_WAIT + DRAIN_ANSWER_MARGIN + MIN_STOP_TIMEOUT + GOODBYE_TIMEOUT
    assert longest <= 9.5, "`docker stop` kills after 10 s"


async def test_a_drain_that_nobody_answers_leaves_little_time_to_deregister(
    providing: RegistrarFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(providing.source, "override", hang)
    monkeypatch.setattr(providing.source, "deregister", hang)
    registrar = providing.register(drain_wait=0.01)
    begun = asyncio.get_running_loop().time()
    async with registrar:
        pass
    assert registrar.state is RegistrarState.STOPPED
    assert (
        asyncio.get_running_loop().time() - begun < 0.01 + DRAIN_ANSWER_MARGIN + MIN_STOP_TIMEOUT + 0.5 < STOP_TIMEOUT
    )


async def test_closing_the_client_deregisters_what_is_registered() -> None:
    it = RegistrarFixture()
    await it.register().start()
    await it.client.close()
    await it.client.close()
    assert it.source.listed == {}
    with pytest.raises(RuntimeError, match="closed"):
        it.register()


async def test_an_address_is_the_given_one_then_the_variables_then_the_one_found(
    providing: RegistrarFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADSUM_ADDRESS", "10.9.9.9")
    await providing.register(8000, address="10.8.8.8").start()
    await providing.register(8001).start()
    monkeypatch.delenv("ADSUM_ADDRESS")
    await providing.register(8002).start()
    assert [body.address for body in providing.source.listed.values()] == ["10.8.8.8", "10.9.9.9", "10.1.2.3"]


async def test_an_instance_moves_when_its_host_gets_another_address_and_not_before(
    providing: RegistrarFixture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    had = {"10.1.2.3", "10.0.7.9"}
    monkeypatch.setattr(instance_address, "is_local", had.__contains__)
    registrar = providing.register()
    await registrar.start()
    providing.source.address = "10.0.7.9"  # The way to the registry is another one; ours is reached as before.
    providing.asked()
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000"]
    had.remove("10.1.2.3")
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000", "register o8000"]
    assert registrar.registered
    assert providing.source.listed["orders", "o8000"].address == "10.0.7.9"
    assert "another one now" in caplog.text
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000"]


async def test_an_instance_that_was_forgotten_registers_at_the_address_that_its_host_has_by_then(
    providing: RegistrarFixture,
) -> None:
    await providing.register().start()
    providing.source.listed.clear()
    providing.source.address = "10.0.7.9"
    await providing.clock.advance(6.0)
    assert providing.source.listed["orders", "o8000"].address == "10.0.7.9"


async def test_a_given_address_is_not_moved(providing: RegistrarFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_address, "is_local", lambda _: False)
    await providing.register(address="192.0.2.7").start()
    providing.asked()
    await providing.clock.advance(6.0)
    assert providing.asked() == ["renew o8000"]


async def test_each_registrar_holds_its_own_lease(providing: RegistrarFixture) -> None:
    await providing.register(8000).start()
    await providing.register(8001).start()
    holders = {body.holder for body in providing.source.listed.values()}
    assert len(holders) == 2
    assert len({process_name(holder) for holder in holders} - {""}) == 1, "they are one process"


async def test_an_error_that_nobody_foresaw_ends_no_renewal(
    providing: RegistrarFixture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await providing.register().start()

    def fail(call: str) -> None:
        raise ValueError("surprise")

    with monkeypatch.context() as patch:
        patch.setattr(providing.source, "_ask", fail)
        await providing.clock.advance(30.0)
    providing.asked()
    await providing.clock.advance(10.0)
    assert "renew o8000" in providing.asked()
    assert "surprise" in caplog.text
    await run_until_idle()


def test_a_registrar_can_be_stopped_in_every_state_and_leaves_none_of_the_final_ones() -> None:
    assert all(MOVES[state, RegistrarEvent.STOPPED] is RegistrarState.STOPPED for state in RegistrarState)
    for final in (RegistrarState.SUPERSEDED, RegistrarState.STOPPED):
        assert {after for (before, _), after in MOVES.items() if before is final} == {RegistrarState.STOPPED}
