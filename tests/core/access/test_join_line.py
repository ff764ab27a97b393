"""Join lines: written, read back, and refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adsum.core.access.join_line import MAX_LINE_LENGTH, MAX_NODES, JoinLine, parse_join_line
from adsum.core.errors import Invalid
from tests.core.access.principals import ID, SECRET, attempt

HASH = "ab" * 32
hosts = st.one_of(
    st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
)
nodes = st.lists(st.builds(lambda host, port: f"{host}:{port}", hosts, st.integers(1, 65_535)), min_size=1, max_size=16)


def line(found: Sequence[str] = ("10.0.0.5:23786",)) -> JoinLine:
    return JoinLine(found, ID, SECRET, HASH)


@given(nodes)
def test_a_join_line_is_read_as_it_was_written(found: list[str]) -> None:
    written = line(tuple(found))
    assert parse_join_line(str(written)) == written
    assert parse_join_line(f"\n  {written}\r\n") == written
    assert written.urls == [f"https://{node}" for node in found]


@given(st.text(max_size=200))
def test_any_text_is_a_line_or_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_join_line(text)
    assert refused.value.field == "line"


@given(nodes, st.data())
def test_a_changed_line_is_refused_or_another_one(found: list[str], data: st.DataObject) -> None:
    text = str(line(tuple(found)))
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters(exclude_characters=text[at])) + text[at + 1 :]
    parsed = attempt(lambda: parse_join_line(changed))
    if isinstance(parsed, Invalid):
        assert SECRET not in str(parsed)
        assert SECRET[:-1] not in str(parsed)
    else:
        assert parsed != line(tuple(found)) or changed.strip() == text


@pytest.mark.parametrize("cut", ["adsum-join://", "#" + HASH, SECRET, ID, "10.0.0.5", ":23786", f"{ID}."])
def test_a_line_that_lacks_a_part_is_refused(cut: str) -> None:
    with pytest.raises(Invalid, match="line"):
        parse_join_line(str(line()).replace(cut, "", 1))


@pytest.mark.parametrize(
    "node",
    [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "a:1:2",
        "::1:80",
        "[::1]",
        "a b:1",
        "a:1/x",
        "user@a:1",
        "a:1?",
        "\u00e9:1",
    ],
)
def test_a_node_that_is_no_address_is_refused_when_read_and_when_written(node: str) -> None:
    with pytest.raises(Invalid):
        parse_join_line(str(line()).replace("10.0.0.5:23786", node))
    with pytest.raises(Invalid):
        line(["10.0.0.5:1", node])


def test_no_line_is_written_that_would_not_be_read() -> None:
    longest = f"{'a' * 60}.example.com:23786"
    assert len(str(line([longest] * MAX_NODES))) <= MAX_LINE_LENGTH
    for count in (0, MAX_NODES + 1):
        with pytest.raises(Invalid, match=f"1 to {MAX_NODES}"):
            line(["a:1"] * count)
    with pytest.raises(Invalid):
        parse_join_line(str(line()).replace("10.0.0.5:23786", ",".join(["a:1"] * (MAX_NODES + 1))))
    with pytest.raises(Invalid, match="name fewer nodes"):
        line([f"{'a' * 253}:23786"] * MAX_NODES)


def test_a_long_text_is_refused() -> None:
    with pytest.raises(Invalid):
        parse_join_line(str(line()) + " " * MAX_LINE_LENGTH + "x")


def test_the_repr_of_a_line_holds_no_secret() -> None:
    assert SECRET not in repr(line())
