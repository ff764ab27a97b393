from __future__ import annotations

import os
import re
import sys

import pytest

from adsum.client.consumer_identity import MAX_NAME_LENGTH, ConsumerIdentity, ServiceConsumers, one_line


def test_a_consumer_keeps_its_id_for_its_life() -> None:
    consumer = ConsumerIdentity()
    assert re.fullmatch("[0-9a-f]{32}", consumer.id)
    assert consumer.id == consumer.id
    assert ConsumerIdentity().id != consumer.id


def test_a_service_that_is_followed_again_has_a_new_consumer_id() -> None:
    consumers = ServiceConsumers(ConsumerIdentity("shop"))
    first = consumers.consumer_for("orders")
    assert consumers.consumer_for("users") is first
    assert consumers.retire(["orders"]) == [(first.id, ["orders"])]
    second = consumers.consumer_for("orders")
    assert (second.id != first.id, second.name) == (True, "shop")
    assert consumers.consumer_for("users") is first
    assert consumers.retire(()) == [(first.id, ()), (second.id, ())]
    assert consumers.consumer_for("orders").id not in (first.id, second.id)


def test_a_forked_child_has_its_own_consumer_id(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = ConsumerIdentity()
    parent = consumer.id
    monkeypatch.setattr(os, "getpid", lambda: -1)
    child = consumer.id
    assert child != parent
    assert consumer.id == child


@pytest.mark.parametrize(
    ("program", "name"),
    [("/opt/checkout.py", "checkout.py"), ("/opt/shop/__main__.py", "shop"), ("-c", "python"), ("", "python")],
)
def test_the_default_name_is_program_process_and_host(program: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    assert re.fullmatch(rf"{re.escape(name)}\[{os.getpid()}\]@.+", ConsumerIdentity().name)


def test_a_name_is_one_line_of_bounded_length() -> None:
    assert ConsumerIdentity("a\nb\t\x00 c").name == "a b c"
    assert len(one_line("x" * 1000)) == MAX_NAME_LENGTH
