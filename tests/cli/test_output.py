"""Output for people and for pipes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import pytest

from adsum import wire
from adsum.cli import output
from adsum.cli.commands import status


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [
        (FakeTerminal(), {"TERM": "xterm"}, True),
        (FakeTerminal(), {"TERM": "dumb"}, False),
        (FakeTerminal(), {"NO_COLOR": "1"}, False),
        (FakeTerminal(), {"NO_COLOR": ""}, True),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"CLICOLOR_FORCE": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "0"}, False),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (FakeTerminal(), {"FORCE_COLOR": "1", "TERM": "dumb"}, True),
    ],
)
def test_colour_follows_the_usual_environment_variables(
    stream: io.StringIO, environ: Mapping[str, str], expected: bool
) -> None:
    assert output.wants_colour(stream, environ) is expected


@pytest.mark.parametrize(
    ("isolated_seconds", "shards", "shares"), [(0.0, 128, ["50%", "50%"]), (20.0, 0, ["nothing", "unknown"])]
)
def test_an_isolated_node_does_not_claim_to_know_the_shares_of_others(
    isolated_seconds: float, shards: int, shares: list[str]
) -> None:
    peers = [wire.PeerView("n2", "http://n2", 128)]
    node = wire.NodeStatus(
        "n1", "0", True, "e", 1, "etcd:", 0.0, 0.0, isolated_seconds=isolated_seconds, shards=shards, peers=peers
    )
    assert [row[-1] for row in status.share_rows(node)] == shares


def test_a_piped_table_is_aligned_plain_text_without_empty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("ID", "ZONE", "STATUS"), [("a", "", "passing"), ("long-id", "", "critical")])
    assert capsys.readouterr().out == "ID       STATUS\na        passing\nlong-id  critical\n"


def test_a_table_has_colours_when_they_are_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output.print_table(("ID", "STATUS"), [("a", "critical")])
    assert "\x1b[31mcritical" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("length", "words"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (3_600, "1 h"), (172_800, "2 d"), (-1, "0 s")]
)
def test_durations_are_printed_in_whole_units(length: float, words: str) -> None:
    assert output.format_duration(length) == words
    assert output.ago(1_000.0, 1_000.0 + length) == f"{words} ago"


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (0.000_321, "0.32 ms"),
        (0.016_7, "17 ms"),
        (0.099_9, "100 ms"),
        (0.251_4, "251 ms"),
        (0.999_7, "1 s"),
        (1.53, "1.5 s"),
        (30.0, "30 s"),
    ],
)
def test_latencies_are_printed_with_two_digits_or_in_milliseconds(length: float, words: str) -> None:
    assert output.format_latency(length) == words


def test_a_cause_without_actor_or_reason_is_printed_alone() -> None:
    assert output.format_cause("drained", "ann", "deploy") == "drained by ann: deploy"
    assert output.format_cause("lease-lapsed", "", "") == "lease-lapsed"


HOSTILE = "o1\x1b[2J\u202ekcab\u200b\u2066 end"
SAFE = r"o1\x1b[2J\u202ekcab\u200b\u2066 end"


def test_control_characters_in_texts_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_message(HOSTILE)
    output.print_line(HOSTILE, output.StatusText(HOSTILE, "passing"))
    output.print_table(("ID", "STATUS"), [(HOSTILE, "passing")])
    printed = capsys.readouterr()
    assert printed.err == f"{SAFE}\n"
    assert printed.out == f"{SAFE}{SAFE}\nID{' ' * (len(SAFE) - 2)}  STATUS\n{SAFE}  passing\n"


def test_a_forced_colour_is_the_only_escape_sequence_of_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output.print_line("a ", output.StatusText(HOSTILE, "passing"))
    assert capsys.readouterr().out == f"a \x1b[32m{SAFE}\x1b[0m\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_keeps_every_character_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    texts = [HOSTILE, "größe", "€", "\U0001f600", "\x9f", "\ufeff"]
    output.print_json(texts)
    text = written.getvalue().decode(encoding).removesuffix("\n")
    assert json.loads(text) == texts
    assert text.isprintable()


def test_a_line_for_a_narrow_terminal_is_broken_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("COLUMNS", "40")
    words = [f"word{n}" for n in range(20)]
    output.print_line(" ".join(words))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 2
    assert " ".join(line.strip() for line in lines).split() == words


def test_a_table_breaks_no_word_that_fits_into_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    row = (
        "canary",
        "shop.example",
        "prefix /orders header x-beta exact '1'",
        "orders?tag!=canary@90, orders?tag=canary@10",
    )
    output.print_table(("ROUTE", "HOSTS", "MATCHES", "TO", "DECLARED"), [(*row, "2 s ago by root@vm")])
    assert {word for cell in row for word in cell.split()} <= set(capsys.readouterr().out.split())


def test_a_table_without_rows_prints_its_header(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    output.print_table(("NODE", "URL"), [])
    assert "NODE" in capsys.readouterr().out


def test_a_claimed_actor_stands_behind_the_proven_one() -> None:
    assert output.format_cause("drained", "ci", "deploy", claimed="ann") == "drained by ci (as ann): deploy"
    assert output.format_cause("drained", "ci", "", "10.0.0.4", "ann") == "drained by ci (as ann, from 10.0.0.4)"
    assert output.format_cause("drained", "ci", "", "10.0.0.4", "ci") == "drained by ci (from 10.0.0.4)"
    unproven = output.format_cause("drained", "anonymous@10.0.0.4", "", "10.0.0.4", "ann")
    assert unproven == "drained by anonymous@10.0.0.4 (as ann)"


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (90 * 86_400.0 - 2, "in 90 d"),
        (3_600.0 - 2, "in 1 h"),
        (86_400.0, "in 24 h"),
        (5.2, "in 5 s"),
        (-90.0, "90 s ago"),
    ],
)
def test_a_time_left_is_rounded(left: float, text: str) -> None:
    assert output.until(1e9 + left, 1e9) == text
