"""The ledger of acknowledgements. The test sets all instants."""

from __future__ import annotations

import pytest

from adsum.consumers import ack_ledger, mute_addresses
from adsum.consumers.ack_ledger import LOST_LISTED_FOR, MUTE_AFTER, AckLedger, AckStatus
from adsum.consumers.ack_record import AckRecord
from adsum.consumers.consumer import Consumer
from adsum.consumers.mute_addresses import MAX_MUTES_PER_ADDRESS
from adsum.core.access.scopes import NO_NAMES, intern_patterns

W = 7.5
A, B = Consumer("a", "web", "10.0.0.1"), Consumer("b", "web", "10.0.0.2")
ORDERS = frozenset({"orders"})
ONLY_USERS = intern_patterns(frozenset({"users"}))


@pytest.fixture
def ledger() -> AckLedger:
    return AckLedger(W)


def waiting(status: AckStatus) -> list[str]:
    return [pending.consumer.id for pending in status.waiting]


def lost(status: AckStatus) -> list[str]:
    return [pending.consumer.id for pending in status.lost]


def left(ledger: AckLedger, consumer: Consumer = A, at: float = 100.0, revision: int = 5) -> None:
    """Connects and disconnects a consumer, without a good-bye."""
    records = ledger.connect(consumer, ORDERS, at)
    ledger.acknowledge(records, revision)
    ledger.disconnect(records, at, at)


def test_a_connected_consumer_is_waited_for_until_it_acknowledges(ledger: AckLedger) -> None:
    records = ledger.connect(A, ORDERS, 0.0)
    ledger.acknowledge(records, 5)
    assert waiting(ledger.review("orders", 6, 1.0)) == ["a"]
    assert waiting(ledger.review("users", 6, 1.0)) == []
    ledger.acknowledge(records, 6)
    assert waiting(ledger.review("orders", 6, 1.0)) == []


def test_a_consumer_that_left_is_waited_for_until_it_is_lost_and_then_listed_for_a_while(ledger: AckLedger) -> None:
    left(ledger, at=100.0)
    status = ledger.review("orders", 6, 100.0)
    assert (waiting(status), lost(status), status.next_loss_at) == (["a"], [], 100.0 + W)
    assert waiting(ledger.review("orders", 6, 100.0 + W - 0.01)) == ["a"]
    for at in (100.0 + W, 100.0 + W + LOST_LISTED_FOR - 0.01):
        status = ledger.review("orders", 6, at)
        assert (waiting(status), lost(status)) == ([], ["a"])
    status = ledger.review("orders", 6, 100.0 + W + LOST_LISTED_FOR)
    assert (waiting(status), lost(status)) == ([], [])


def test_a_consumer_that_acknowledged_before_it_left_is_not_waited_for(ledger: AckLedger) -> None:
    left(ledger, revision=6)
    assert waiting(ledger.review("orders", 6, 100.0)) == []
    assert waiting(ledger.review("orders", 7, 100.0)) == ["a"]


def test_a_consumer_that_comes_back_is_waited_for_until_it_acknowledges(
    ledger: AckLedger,
) -> None:
    left(ledger)
    records = ledger.connect(A, ORDERS, 101.0)
    assert waiting(ledger.review("orders", 6, 120.0)) == ["a"]
    ledger.acknowledge(records, 6)
    assert waiting(ledger.review("orders", 6, 120.0)) == []


def test_another_consumer_does_not_acknowledge_for_the_one_that_left(ledger: AckLedger) -> None:
    left(ledger)
    ledger.acknowledge(ledger.connect(B, ORDERS, 100.5), 6)
    assert waiting(ledger.review("orders", 6, 101.0)) == ["a"]


def test_the_end_of_the_old_connection_does_not_matter_while_the_new_one_stands(ledger: AckLedger) -> None:
    old = ledger.connect(A, ORDERS, 0.0)
    new = ledger.connect(A, ORDERS, 1.0)
    ledger.acknowledge(new, 6)
    ledger.disconnect(old, 2.0, 2.0)
    assert waiting(ledger.review("orders", 6, 3.0)) == []
    assert ledger.connected_count == 1
    assert ledger.departed_count(3.0) == 0


def test_the_consumer_of_a_silent_connection_is_lost_when_it_ends(ledger: AckLedger) -> None:
    records = ledger.connect(A, ORDERS, 0.0)
    ledger.disconnect(records, 100.0 - W, 100.0)
    status = ledger.review("orders", 6, 100.0)
    assert (waiting(status), lost(status)) == ([], ["a"])


def test_a_silent_connection_does_not_affect_one_that_ended_later(ledger: AckLedger) -> None:
    silent = ledger.connect(A, ORDERS, 0.0)
    other = ledger.connect(A, ORDERS, 95.0)
    ledger.disconnect(other, 99.0, 99.0)
    ledger.disconnect(silent, 100.0 - W, 100.0)
    assert waiting(ledger.review("orders", 6, 100.0)) == ["a"]


def test_a_mute_consumer_counts_as_lost_until_it_acknowledges(ledger: AckLedger) -> None:
    records = ledger.connect(A, ORDERS, 0.0)
    assert waiting(ledger.review("orders", 6, 50.0)) == ["a"], "no drain waited for it before"
    assert waiting(ledger.review("orders", 6, 50.0 + MUTE_AFTER - 0.01)) == ["a"]
    status = ledger.review("orders", 7, 50.0 + MUTE_AFTER)
    assert (waiting(status), lost(status)) == ([], ["a"])
    assert ledger.lost_count(50.0 + MUTE_AFTER) == 1
    assert lost(ledger.review("orders", 7, 500.0)) == ["a"], "it is connected, so it stays listed"
    ledger.acknowledge(records, 6)
    assert waiting(ledger.review("orders", 7, 500.0)) == ["a"]


def test_a_consumer_that_only_reconnects_is_mute_too(ledger: AckLedger) -> None:
    records = ledger.connect(A, ORDERS, 0.0)
    ledger.review("orders", 6, 0.0)
    for at in (5.0, 10.0, 15.0, 20.0, 25.0):
        ledger.disconnect(records, at, at)
        records = ledger.connect(A, ORDERS, at + 1.0)
    assert waiting(ledger.review("orders", 6, MUTE_AFTER)) == []


def test_a_consumer_that_was_disconnected_for_long_is_not_mute(ledger: AckLedger) -> None:
    left(ledger)
    ledger.review("orders", 6, 100.0)
    ledger.connect(A, ORDERS, 100.0 + W + 25.0)
    assert waiting(ledger.review("orders", 6, 100.0 + W + 25.0)) == ["a"]


@pytest.mark.parametrize("services", [None, ORDERS])
def test_a_good_bye_removes_a_consumer_that_is_connected_or_left(
    ledger: AckLedger, services: frozenset[str] | None
) -> None:
    left(ledger, A)
    still_open = ledger.connect(B, ORDERS, 100.0)
    for consumer in (A, B):
        ledger.say_goodbye(consumer.id, services, 100.0)
    assert waiting(ledger.review("orders", 6, 100.0)) == []
    ledger.disconnect(still_open, 101.0, 101.0)
    assert waiting(ledger.review("orders", 6, 101.0)) == []
    assert (ledger.connected_count, ledger.departed_count(101.0)) == (0, 0)


def test_a_good_bye_to_one_service_leaves_the_others(ledger: AckLedger) -> None:
    ledger.connect(A, frozenset({"orders", "users"}), 0.0)
    ledger.say_goodbye("a", ORDERS, 0.0)
    assert waiting(ledger.review("orders", 6, 0.0)) == []
    assert waiting(ledger.review("users", 6, 0.0)) == ["a"]


def test_a_consumer_that_comes_back_after_a_good_bye_is_waited_for_again(ledger: AckLedger) -> None:
    ledger.say_goodbye("a", frozenset({"orders", "users"}), 0.0)
    ledger.connect(A, ORDERS, 1.0)
    assert waiting(ledger.review("orders", 6, 1.0)) == ["a"]
    assert ledger.goodbye_ids(["a"], "orders", 1.0) == []
    assert ledger.goodbye_ids(["a"], "users", 1.0) == ["a"]


def test_a_good_bye_of_an_unknown_consumer_is_remembered_for_other_nodes(ledger: AckLedger) -> None:
    ledger.say_goodbye("a", None, 0.0)
    ledger.say_goodbye("b", ORDERS, 0.0)
    ledger.say_goodbye("b", frozenset({"users"}), 1.0)
    assert ledger.goodbye_ids(["a", "b", "c"], "orders", W - 0.01) == ["a", "b"]
    assert ledger.goodbye_ids(["b"], "users", W) == ["b"]
    assert ledger.goodbye_ids(["a"], "orders", W) == []


def test_what_was_acknowledged_at_another_node_counts_here(ledger: AckLedger) -> None:
    left(ledger, A)
    ledger.connect(B, ORDERS, 100.0)
    ledger.acknowledge_elsewhere(["a", "b", "c"], "orders", 6, only_departed=True)
    assert waiting(ledger.review("orders", 6, 100.0)) == ["b"], "it is connected here, whatever it acknowledged before"
    ledger.acknowledge_elsewhere(["b"], "orders", 6, only_departed=False)
    assert waiting(ledger.review("orders", 6, 100.0)) == []
    assert ledger.acknowledged_ids(["a", "b", "c"], "orders", 6) == ["a", "b"]
    assert ledger.acknowledged_ids(["a"], "orders", 7) == []


def test_a_consumer_of_all_services_is_waited_for_by_every_drain(ledger: AckLedger) -> None:
    records = ledger.connect(A, None, 0.0)
    assert waiting(ledger.review("orders", 6, 0.0)) == ["a"]
    ledger.acknowledge(records, 6)
    assert waiting(ledger.review("orders", 6, 0.0)) == []
    assert ledger.acknowledged_ids(["a"], "orders", 6) == ["a"]


def test_no_drain_waits_for_a_consumer_of_all_services_that_may_not_read_its_service(ledger: AckLedger) -> None:
    limited = Consumer("a", visible=intern_patterns(frozenset({"orders*"})))
    records = ledger.connect(limited, None, 0.0)
    status = ledger.review("users", 6, 1.0)
    assert (waiting(status), lost(status)) == ([], [])
    assert waiting(ledger.review("orders-eu", 6, 1.0)) == ["a"]
    ledger.disconnect(records, 2.0, 2.0)
    assert waiting(ledger.review("orders", 6, 2.0)) == ["a"]
    status = ledger.review("users", 6, 2.0 + W)
    assert (waiting(status), lost(status)) == ([], []), "it had no view of it"


def test_a_consumer_with_wider_rights_is_waited_for_from_its_next_connection_on(ledger: AckLedger) -> None:
    ledger.connect(Consumer("a", visible=NO_NAMES), None, 0.0)
    assert waiting(ledger.review("orders", 6, 1.0)) == []
    ledger.connect(A, None, 1.0)
    assert waiting(ledger.review("orders", 6, 1.0)) == ["a"]


def test_a_consumer_with_narrower_rights_is_waited_for_until_it_acknowledges_its_new_view(ledger: AckLedger) -> None:
    ledger.disconnect(ledger.connect(A, None, 0.0), 1.0, 1.0)
    records = ledger.connect(Consumer("a", visible=ONLY_USERS), None, 1.0)
    assert waiting(ledger.review("orders", 6, 1.0)) == ["a"], "it may still route by its view from before"
    ledger.acknowledge(records, 5)
    assert waiting(ledger.review("orders", 6, 1.0)) == []
    assert waiting(ledger.review("users", 6, 1.0)) == ["a"]


def test_a_consumer_whose_rights_change_twice_is_waited_for_by_every_drain(ledger: AckLedger) -> None:
    for visible in (intern_patterns(frozenset({"orders"})), ONLY_USERS, NO_NAMES):
        records = ledger.connect(Consumer("a", visible=visible), None, 0.0)
    assert waiting(ledger.review("orders", 6, 1.0)) == ["a"]
    ledger.acknowledge(records, 6)
    assert waiting(ledger.review("orders", 7, 1.0)) == []


def test_after_a_restart_unknown_consumers_are_waited_for(ledger: AckLedger) -> None:
    ledger.note_restart(0.0)
    (pending,) = ledger.review("orders", 6, W - 0.01).waiting
    assert "before the restart" in pending.consumer.name
    status = ledger.review("orders", 6, W)
    assert (status.waiting, status.lost) == ([], [])


def test_acknowledgements_of_another_epoch_do_not_count(ledger: AckLedger) -> None:
    records = ledger.connect(A, ORDERS, 0.0)
    ledger.acknowledge(records, 100)
    ledger.reset_revisions()
    assert waiting(ledger.review("orders", 6, 0.0)) == ["a"]


def test_a_client_without_an_id_takes_the_id_of_one_that_left_from_its_address(ledger: AckLedger) -> None:
    left(ledger, A)
    assert ledger.find_departed("web", "10.0.0.1", 101.0) == "a"
    assert ledger.find_departed("web", "10.0.0.9", 101.0) is None
    assert ledger.find_departed("web", "10.0.0.1", 101.0, "another-token") is None
    ledger.connect(A, ORDERS, 101.0)
    assert ledger.find_departed("web", "10.0.0.1", 101.0) is None, "a second client does not take the same id"


def test_past_the_bound_unknown_consumers_are_waited_for_in_place_of_forgotten_ones(
    ledger: AckLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ack_ledger, "MAX_DEPARTED_RECORDS", 1)
    left(ledger, A, at=100.0)
    left(ledger, B, at=101.0)
    status = ledger.review("orders", 6, 101.0)
    assert waiting(status) == ["b", ""]
    assert waiting(ledger.review("orders", 6, 100.0 + W)) == ["b"]


def test_past_the_bound_a_lost_consumer_is_only_forgotten(ledger: AckLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ack_ledger, "MAX_DEPARTED_RECORDS", 1)
    left(ledger, A, at=100.0)
    left(ledger, B, at=100.0 + W)
    status = ledger.review("orders", 6, 100.0 + W)
    assert (waiting(status), lost(status)) == (["b"], [])


def test_past_the_bound_the_first_good_bye_is_forgotten(ledger: AckLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ack_ledger, "MAX_GOODBYES", 1)
    for id in ("a", "b"):
        ledger.say_goodbye(id, None, 0.0)
    assert ledger.goodbye_ids(["a", "b"], "orders", 0.0) == ["b"]


def test_a_good_bye_to_several_services_counts_for_each(ledger: AckLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ack_ledger, "MAX_GOODBYES", 3)
    ledger.say_goodbye("a", frozenset({"orders", "users"}), 0.0)
    ledger.say_goodbye("a", frozenset({"orders"}), 0.0)
    ledger.say_goodbye("b", ORDERS, 0.0)
    assert ledger.goodbye_ids(["a", "b"], "orders", 0.0) == ["a", "b"]
    ledger.connect(A, ORDERS, 0.0)
    ledger.say_goodbye("c", frozenset({"orders"}), 0.0)
    assert ledger.goodbye_ids(["a", "b", "c"], "users", 0.0) == ["a"], "a good-bye that was withdrawn no longer counts"
    ledger.say_goodbye("d", frozenset({"orders"}), 0.0)
    assert ledger.goodbye_ids(["a", "b", "c", "d"], "users", 0.0) == ["a"]
    assert ledger.goodbye_ids(["a", "b", "c", "d"], "orders", 0.0) == ["c", "d"], "the good-bye of b was the first"


def test_the_counts_are_of_consumers_and_not_of_records(ledger: AckLedger) -> None:
    services = frozenset({"orders", "users"})
    records: tuple[AckRecord, ...] = ledger.connect(A, services, 0.0)
    assert ledger.connected_count == 1
    ledger.disconnect(records, 10.0, 10.0)
    assert (ledger.connected_count, ledger.departed_count(10.0), ledger.lost_count(10.0)) == (0, 1, 0)
    assert (ledger.departed_count(10.0 + W), ledger.lost_count(10.0 + W)) == (0, 1)
    assert ledger.lost_count(10.0 + W + LOST_LISTED_FOR) == 0


def native(id: str, address: str = "10.0.0.1") -> Consumer:
    return Consumer(id, "web", address, acks_immediately=True)


def test_a_consumer_that_never_acknowledges_is_soon_lost(ledger: AckLedger) -> None:
    records = ledger.connect(native("a"), ORDERS, 0.0)
    status = ledger.review("orders", 6, W - 0.01)
    assert (waiting(status), status.next_loss_at) == (["a"], W)
    status = ledger.review("orders", 6, W)
    assert (waiting(status), lost(status), ledger.lost_count(W)) == ([], ["a"], 1)
    assert "nothing since it connected" in status.lost[0].reason
    ledger.acknowledge(records, 5)
    assert waiting(ledger.review("orders", 6, 100.0)) == ["a"], "from now on it has the usual time"
    assert lost(ledger.review("orders", 6, 100.0 + MUTE_AFTER)) == ["a"]


def test_mute_consumers_under_new_ids_delay_a_bounded_number_of_drains(ledger: AckLedger) -> None:
    held = 0
    for n in range(3 * MAX_MUTES_PER_ADDRESS):
        ledger.connect(native(f"mute{n}"), ORDERS, 100.0 * n)
        held += bool(ledger.review("orders", 6, 100.0 * n).waiting)
        ledger.review("orders", 6, 100.0 * n + W)
    assert held == MAX_MUTES_PER_ADDRESS
    status = ledger.review("orders", 6, 100.0 * (3 * MAX_MUTES_PER_ADDRESS))
    assert "like the 8 consumers before it from its address" in status.lost[-1].reason
    ledger.connect(native("other", "10.0.0.2"), ORDERS, 9000.0)
    assert waiting(ledger.review("orders", 6, 9000.0)) == ["other"], "each address is counted on its own"


def test_mute_consumers_that_come_and_go_are_counted_too_and_those_that_say_good_bye_are_not(ledger: AckLedger) -> None:
    for n in range(3 * MAX_MUTES_PER_ADDRESS):
        ledger.disconnect(ledger.connect(native(f"short{n}"), ORDERS, n), n, n)
        ledger.say_goodbye(f"short{n}", None, n)
    ledger.connect(native("a"), ORDERS, 100.0)
    assert waiting(ledger.review("orders", 6, 100.0)) == ["a"]
    ledger.say_goodbye("a", None, 100.0)
    for n in range(MAX_MUTES_PER_ADDRESS):
        ledger.disconnect(ledger.connect(native(f"mute{n}"), ORDERS, 100.0), 100.0, 100.0)
    ledger.connect(native("b"), ORDERS, 100.0)
    assert waiting(ledger.review("orders", 6, 100.0)) == [], "mute consumers that left are counted, too"


def test_a_thousand_honest_consumers_at_one_address_are_waited_for_beside_broken_ones(ledger: AckLedger) -> None:
    records = {}
    for n in range(1_000):
        records[n] = ledger.connect(native(f"c{n}"), ORDERS, 0.0)
    assert len(ledger.review("orders", 6, 1.0).waiting) == 1_000, "they come all at once"
    for n in range(1_000):
        ledger.acknowledge(records[n], 5)
    for n in range(3 * MAX_MUTES_PER_ADDRESS):  # One program crashes again and again before it acknowledges anything.
        ledger.disconnect(ledger.connect(native(f"crash{n}"), ORDERS, 10.0 + n), 10.0 + n, 10.0 + n)
        ledger.acknowledge(ledger.connect(native(f"well{n}"), ORDERS, 10.0 + n), 6)
    ledger.connect(native("new"), ORDERS, 200.0)
    assert len(ledger.review("orders", 6, 200.0).waiting) == 1_001


def test_a_consumer_from_a_suspect_address_is_waited_for_once_it_acknowledges(ledger: AckLedger) -> None:
    for n in range(MAX_MUTES_PER_ADDRESS):
        ledger.disconnect(ledger.connect(native(f"mute{n}"), ORDERS, 0.0), 0.0, 0.0)
    honest = ledger.connect(native("honest"), ORDERS, 1.0)
    assert lost(ledger.review("orders", 6, 1.0))[-1] == "honest"
    ledger.acknowledge(honest, 5)
    assert waiting(ledger.review("orders", 6, 1.0))[-1] == "honest"


def test_the_addresses_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mute_addresses, "MAX_MUTE_ADDRESSES", 2)
    ids = mute_addresses.MuteAddresses()
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        for n in range(MAX_MUTES_PER_ADDRESS):
            ids.add(native(f"m{n}", address))
    assert [ids.is_suspect(native("x", f"10.0.0.{n}")) for n in (1, 2, 3)] == [False, True, True]
