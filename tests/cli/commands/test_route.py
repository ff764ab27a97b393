"""`adsum route`, against a running registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.cli.conftest import Adsum

if TYPE_CHECKING:
    from tests.support.registry_daemon import RunningDaemon


UNKNOWN = ["no", "service", "orders", "is", "registered", "(it", "never", "was,", "or", "was", "forgotten)"]


@pytest.fixture(autouse=True)
def registry(daemon: RunningDaemon, monkeypatch: pytest.MonkeyPatch) -> RunningDaemon:
    monkeypatch.setenv("ADSUM_URL", daemon.url)
    monkeypatch.setenv("ADSUM_ACTOR", "ann")
    return daemon


def test_a_route_is_added_listed_checked_and_withdrawn(adsum: Adsum) -> None:
    assert "no route" in adsum("route", "ls").err
    added = adsum(
        "route",
        "add",
        "canary",
        "--path",
        "/orders",
        "--to",
        "orders?tag!=canary&version!=2@90",
        "--to",
        "orders?tag=canary@10",
        "--header",
        "x-beta=1",
        "--timeout",
        "15s",
    )
    assert added.code == 0, added.err
    (row,) = adsum("route", "ls").out.splitlines()[1:]
    assert row.split()[:2] == ["canary", "any"]
    assert "orders?tag!=canary&version!=2@90, orders?tag=canary@10" in row
    assert "by anonymous@127.0.0.1 (as ann)" in row
    taken = adsum("route", "check", "http://shop.example/orders/7", "-H", "X-Beta: 1")
    assert taken.code == 0
    rows = [line.split() for line in taken.out.splitlines()]
    assert rows[1:] == [
        ["target", "orders?tag!=canary&version!=2", "90%:", *UNKNOWN],
        ["target", "orders?tag=canary", "10%:", *UNKNOWN],
        ["path", "/orders/7"],
    ]
    usual = adsum("route", "check", "/orders/7").out.splitlines()
    assert "a default route" in usual[0]
    assert [line.split()[0] for line in usual[1:]] == ["target", "path", "no"]
    assert usual[-1].split()[:3] == ["no", "match", "canary"]
    assert adsum("route", "check", "/orders/7", "--no-default-routes").code == 3
    unmatched = adsum("route", "check", "/nobody/7")
    assert (unmatched.code, "404" in unmatched.err) == (3, True)
    assert adsum("route", "rm", "canary").code == 0
    assert adsum("route", "rm", "canary").code == 3
    assert adsum("route", "add", "canary", "--to", "orders").code == 0
    withdrawn = adsum("route", "rm", "canary", "--json")
    assert (withdrawn.code, withdrawn.err) == (0, "")
    assert json.loads(withdrawn.out)["revision"] > 0
    assert adsum("route", "rm", "canary", "--json").code == 3


def test_targets_without_available_instances_are_named(adsum: Adsum, registry: RunningDaemon, tmp_path: Path) -> None:
    put = httpx.put(f"{registry.url}/api/v1/services/orders/instances/o1", json={"port": 8000})
    assert put.status_code == 201, put.text
    to = ("--to", "orders?tag!=canary@60", "--to", "orders?tag=canary@30", "--to", "ordrs@10")
    empty = "route canary leads to orders?tag=canary: no instance of it is available"
    unknown = "route canary leads to ordrs: no service ordrs is registered (it never was, or was forgotten)"
    added = adsum("route", "add", "canary", "--path", "/orders", *to)
    assert added.code == 0
    assert added.err.splitlines()[1:] == [empty, unknown]
    assert adsum("route", "ls").err.splitlines() == [empty, unknown]
    rows = [" ".join(line.split()) for line in adsum("route", "check", "/orders/7").out.splitlines()]
    assert rows[1:4] == [
        "target orders?tag!=canary 100%",
        "target orders?tag=canary 0%: no instance of it is available",
        "target ordrs 0%: no service ordrs is registered (it never was, or was forgotten)",
    ]
    verdict = json.loads(adsum("route", "check", "/orders/7", "--json").out)
    assert [(target["share"], target.get("availability", "available")) for target in verdict["to"]] == [
        (1.0, "available"),
        (0.0, "empty"),
        (0.0, "unknown"),
    ]
    status = " ".join(adsum("status").out.split())
    assert f"empty {empty} empty {unknown}" in status
    file = tmp_path / "gateway.toml"
    file.write_text('[[route]]\nname = "canary"\npath = { prefix = "/o" }\nto = [{ service = "ordrs" }]\n')
    assert adsum("route", "apply", str(file)).err.splitlines()[1:] == [unknown]
    file.write_text('[[route]]\nname = "canary"\npath = { prefix = "/o" }\nto = [{ service = "orders" }]\n')
    assert len(adsum("route", "apply", str(file)).err.splitlines()) == 1


def test_an_invalid_route_is_reported_in_one_sentence(adsum: Adsum) -> None:
    for args in (
        ("--to", "Orders"),
        (),
        ("--to", "orders", "--path", "orders"),
        ("--to", "orders", "--timeout", "soon"),
    ):
        done = adsum("route", "add", "x", *args)
        assert done.code != 0
        assert len(done.err.strip().splitlines()) <= 4, done.err
        assert "Traceback" not in done.err
    assert adsum("route", "ls").out == ""


def test_a_redirect_is_declared_by_its_url(adsum: Adsum) -> None:
    assert adsum("route", "add", "tls", "--redirect", "https://shop.example").code == 0
    verdict = adsum("route", "check", "http://any.example/a?b=1", "--json")
    assert json.loads(verdict.out)["location"] == "https://shop.example/a?b=1"


@pytest.mark.parametrize(
    "url",
    ["https://shop.example:99999/", "https://shop.example/x?y=1", "https://shop.example:0/", "https://ann@a/", "/#a"],
)
def test_a_redirect_with_query_fragment_or_user_is_refused(adsum: Adsum, url: str) -> None:
    refused = adsum("route", "add", "tls", "--redirect", url)
    assert refused.code not in (0, 1)
    assert "redirect" in refused.err
    assert "unexpected" not in refused.err


def test_apply_replaces_all_routes_and_prints_the_changes(adsum: Adsum, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    adsum("route", "add", "old", "--to", "old")
    file.write_text(
        '[[route]]\nname = "shop"\nhosts = ["shop.example"]\nto = [{ service = "web" }]\ntimeout = "15s"\n'
        '[[upstream]]\nservice = "web"\npolicy = "round_robin"\n'
    )
    changes = ["+ route shop", "+ upstream web", "- route old"]
    assert adsum("route", "apply", str(file), "--dry-run").out.splitlines() == changes
    assert adsum("route", "apply", str(file)).out.splitlines() == changes
    assert adsum("route", "apply", str(file)).out == ""
    listed = json.loads(adsum("route", "ls", "--json").out)
    assert [(view["route"]["name"], view["route"]["timeout"]) for view in listed["routes"]] == [("shop", 15.0)]
    file.write_text('[[route]]\nname = "shop"\nto = [{ service = "web" }]\npath = { prefix = "x" }\n')
    refused = adsum("route", "apply", str(file))
    assert refused.code == 78
    assert f"{file}: [[route]] 1 'shop': path.prefix: must" in refused.err
    assert json.loads(adsum("route", "ls", "--json").out) == listed


@pytest.mark.parametrize(
    "text", ["[[rout]]", "route = 1", "[[route]]\nto = []", "[[route", '[[route]]\nname = "a b"\n']
)
def test_an_invalid_intent_file_is_refused(adsum: Adsum, tmp_path: Path, text: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    done = adsum("route", "apply", str(file))
    assert (done.code, str(file) in done.err) == (78, True)


def test_an_empty_file_withdraws_everything_only_with_prune(adsum: Adsum, tmp_path: Path) -> None:
    assert adsum("route", "add", "shop", "--to", "web").code == 0
    empty = tmp_path / "empty.toml"
    empty.touch()
    refused = adsum("route", "apply", str(empty))
    assert refused.code == 2
    assert refused.err == f"adsum: {empty} declares no route and no upstream; add --prune to withdraw all of them\n"
    assert "shop" in adsum("route", "ls").out
    pruned = adsum("route", "apply", str(empty), "--prune")
    assert (pruned.code, pruned.out) == (0, "- route shop\n")
    assert "no route" in adsum("route", "ls").err


def test_route_history_shows_actor_reason_and_both_values(adsum: Adsum, tmp_path: Path) -> None:
    nothing = adsum("route", "history", "shop")
    assert (nothing.code, "no change of the route or upstream 'shop' is recorded" in nothing.err) == (3, True)
    adsum("route", "add", "shop", "--to", "web", "--reason", "launch")
    file = tmp_path / "gateway.toml"
    file.write_text('[[route]]\nname = "shop"\nto = [{ service = "shop" }]\n')
    assert adsum("route", "apply", str(file), "--reason", "moved").code == 0
    adsum("route", "rm", "shop", "--reason", "closed")
    parts_of_lines = [line.split(maxsplit=4) for line in adsum("route", "history", "shop").out.splitlines()]
    assert [" ".join(parts[-1:] if parts[0][0].isdigit() else parts) for parts in parts_of_lines] == [
        "route shop  withdrawn by anonymous@127.0.0.1 (as ann): closed",
        '- to = [{"service":"shop"}]',
        "route shop  changed by anonymous@127.0.0.1 (as ann): moved",
        '- to = [{"service":"web"}]',
        '+ to = [{"service":"shop"}]',
        "route shop  declared by anonymous@127.0.0.1 (as ann): launch",
        '+ to = [{"service":"web"}]',
    ]
    as_json = adsum("route", "history", "--limit", "1", "--json")
    assert [edit["edit"] for edit in json.loads(as_json.out)["edits"]] == ["withdrawn"]
