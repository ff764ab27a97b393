from __future__ import annotations

import pytest

from adsum.client.registration.check_specs import parse_check, parse_checks
from adsum.core.errors import Invalid
from adsum.core.model import Check, CheckKind


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("http", Check("http", CheckKind.HTTP)),
        ("http:/health", Check("http", CheckKind.HTTP, path="/health")),
        ("https:/health", Check("https", CheckKind.HTTP, path="/health", tls=True)),
        ("http:8081:/health", Check("http", CheckKind.HTTP, path="/health", port=8081)),
        ("http:8081", Check("http", CheckKind.HTTP, port=8081)),
        ("tcp", Check("tcp", CheckKind.TCP)),
        ("tcp:5432", Check("tcp", CheckKind.TCP, port=5432)),
        ("grpc", Check("grpc", CheckKind.GRPC)),
        ("grpc:orders.v1.Orders", Check("grpc", CheckKind.GRPC, grpc_service="orders.v1.Orders")),
        ("grpcs:9000:a", Check("grpcs", CheckKind.GRPC, grpc_service="a", port=9000, tls=True)),
        (
            "http:/h?interval=5s&timeout=500ms&rise=1&fall=2&method=HEAD&expect=200-299,304&name=web",
            Check("web", CheckKind.HTTP, 5.0, 0.5, 1, 2, path="/h", method="HEAD", expect=((200, 299), (304, 304))),
        ),
    ],
)
def test_a_check_written_as_text_is_parsed(text: str, check: Check) -> None:
    assert parse_check(text) == check


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("ftp:/x", "check", "must start with http"),
        ("", "check", "must start with http"),
        ("http:health", "check", "must start with /"),
        ("tcp:/x", "check", "a port only"),
        ("tcp:99999", "check.port", "1 to 65535"),
        ("tcp:12x", "check.port", "1 to 65535"),
        ("http:/h?interval=soon", "check.interval", "length of time"),
        ("http:/h?interval=1ms", "check.interval", "seconds"),
        ("http:/h?rise=x", "check.rise", "whole number"),
        ("http:/h?rise=0", "check.rise", "whole number"),
        ("http:/h?colour=red", "check", "'colour' is not an option of a check; the options are interval"),
        ("http:/h?intervall=3", "check", "'intervall' is not an option of a check; did you mean interval"),
        ("http:/h?expect=2xx", "check.expect", "statuses"),
        ("http:/h?method=BREW", "check.method", "GET"),
    ],
)
def test_an_invalid_check_is_refused_with_its_field_and_reason(text: str, field: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        parse_check(text)
    assert refused.value.field == field


def test_checks_of_one_kind_get_different_names() -> None:
    checks = parse_checks(["http:/a", "http:/b", Check("db", CheckKind.TCP), "http:/c"])
    assert [check.name for check in checks] == ["http", "http-2", "db", "http-3"]


def test_the_field_of_a_wrong_check_among_several_has_its_number() -> None:
    with pytest.raises(Invalid) as refused:
        parse_checks(["tcp", "nope"])
    assert refused.value.field == "checks[1]"
