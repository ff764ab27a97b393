"""The commands `adsum route …`: declare, list, check and withdraw routes of gateways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import click

from adsum import wire
from adsum.cli import empty_targets, output
from adsum.cli.arguments import json_option, reason_option
from adsum.cli.client import run_with_client
from adsum.cli.commands.route_history import history
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.intent_file import read_intent
from adsum.cli.settings.flags import UNUSED_BY_READS, UNUSED_BY_WRITES, with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.config.client import ClientConfig
from adsum.core.catalog.documents import DocumentKey
from adsum.core.errors import Invalid
from adsum.gateway.intent.actions import Target

_TARGET: Final = re.compile(r"(?P<service>[^?@]+)(?:\?(?P<pairs>.+?))?(?:@(?P<weight>\d+))?")


@click.group(
    epilog="Example: adsum route add shop --host shop.example --to web. All fields of a route: docs/gateway.md."
)
def route() -> None:
    """Manage the routes of gateways: which requests go to which service.

    Without any route, every service is reachable under /SERVICE/… and as SERVICE.localhost. The registry stores the
    routes, and every gateway applies a change at once.
    """


route.add_command(history)


@route.command(
    epilog="Examples: adsum route add shop --host shop.example --to web; "
    "adsum route add canary --path /orders --to 'orders?tag!=canary@90' --to 'orders?tag=canary@10'"
)
@click.argument("name")
@click.option(
    "--to",
    multiple=True,
    metavar="SERVICE[?tag=T&KEY=VALUE][@WEIGHT]",
    help="Service that gets the requests; may be given several times, with weights; != instead of = selects instances "
    "without the tag or metadata.",
)
@click.option(
    "--host",
    multiple=True,
    metavar="NAME",
    help="Only requests for this host; *.example matches every host below example.",
)
@click.option("--path", metavar="PREFIX", help="Only paths that start with this prefix.")
@click.option("--exact", metavar="PATH", help="Only exactly this path.")
@click.option("--regex", metavar="REGEX", help="Only paths that match this pattern as a whole.")
@click.option("--method", multiple=True, metavar="METHOD", help="Only requests with this method.")
@click.option("--header", multiple=True, metavar="NAME[=VALUE]", help="Only requests with this header.")
@click.option("--query", multiple=True, metavar="NAME[=VALUE]", help="Only requests with this query parameter.")
@click.option("--rewrite", metavar="PATH", help="Replace the matched prefix by this path.")
@click.option(
    "--redirect",
    metavar="URL",
    help="Answer with a redirect instead: a path, or scheme://host[:port][/path]; the query is kept.",
)
@click.option("--timeout", metavar="DURATION", help="Time limit of the whole response with all its tries, such as 15s.")
@click.option("--try-timeout", metavar="DURATION", help="Time limit of one try.")
@click.option("--priority", type=int, help="Routes with a higher priority are matched first.  [default: 0]")
@reason_option("Reason of the declaration")
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def add(loaded: Settings, name: str, reason: str, **options: Any) -> None:
    """Declare a route, or replace it.

    A request takes the first route that matches. Routes are ordered by priority, then by the more exact host, the more
    exact path, and the number of conditions. A file can declare more than these flags: `adsum route apply --help`.
    """
    body = wire.decode(wire.encode(_route_body(options)), wire.RouteBody)
    body.to_route(name)

    async def work(client: Client) -> wire.RouteView:
        await client.api.put_route(name, body, reason=reason)
        return await client.api.route(name)

    view = run_with_client(loaded, work)
    output.print_message(f"route {name} is declared; `adsum route check URL` shows which requests take it")
    _print_empty_targets([view])


def _route_body(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON of the route, with the fields that were given."""
    paths = {kind: options[flag] for flag, kind in (("path", "prefix"), ("exact", "exact"), ("regex", "regex"))}
    fields = {
        "to": [_parse_target(text) for text in options["to"]],
        "hosts": list(options["host"]),
        "path": {kind: value for kind, value in paths.items() if value is not None},
        "methods": list(options["method"]),
        "headers": [_parse_condition(text) for text in options["header"]],
        "query": [_parse_condition(text) for text in options["query"]],
        "redirect": _parse_redirect(options["redirect"]) if options["redirect"] is not None else None,
        **{name: options[name] for name in ("rewrite", "timeout", "try_timeout", "priority")},
    }
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def _parse_target(text: str) -> dict[str, Any]:
    match = _TARGET.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"must be SERVICE[?tag=T&KEY=VALUE][@WEIGHT], not {text!r}", param_hint="--to")
    pairs = parse_qsl(match["pairs"] or "", keep_blank_values=True)
    fields = {
        "service": match["service"],
        "tags": [value for key, value in pairs if key == "tag"],
        "metadata": {key: value for key, value in pairs if key != "tag" and not key.endswith("!")},
        "without_tags": [value for key, value in pairs if key == "tag!"],
        "without_metadata": {key[:-1]: value for key, value in pairs if key != "tag!" and key.endswith("!")},
        "weight": int(match["weight"]) if match["weight"] else None,
    }
    return {name: value for name, value in fields.items() if value not in (None, [], {})}


def _parse_condition(text: str) -> dict[str, Any]:
    name, equals, value = text.partition("=")
    return {"name": name, "exact": value} if equals else {"name": name, "present": True}


def _parse_redirect(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise click.BadParameter(f"can't read {url!r}: {error}", param_hint="--redirect") from None
    if any(sign in url for sign in "?#@"):
        problem = f"must be a path, or scheme://host[:port][/path], not {url!r}: the query of the request is kept"
        raise click.BadParameter(problem, param_hint="--redirect")
    fields = {"scheme": parts.scheme, "host": parts.hostname, "port": port, "path": parts.path}
    return {name: value for name, value in fields.items() if value not in (None, "")}


@route.command(epilog="Example: adsum route ls --json | jq -r '.routes[].route.name'")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def ls(loaded: Settings, as_json: bool) -> None:
    """List the routes and who declared them. `adsum route check` shows which of them takes a request.

    --json prints the response of GET /api/v1/routes.
    """
    listed = run_with_client(loaded, lambda client: client.api.routes())
    if as_json:
        output.print_json(listed)
    elif listed.routes:
        output.print_table(("ROUTE", "HOSTS", "MATCHES", "TO", "DECLARED"), [_row(view) for view in listed.routes])
        _print_empty_targets(listed.routes)
    else:
        output.print_message(
            "no route is declared: every service is reachable under /SERVICE/ and as SERVICE.localhost"
        )


def _print_empty_targets(routes: Iterable[wire.RouteView]) -> None:
    for message in empty_targets.messages(routes):
        output.print_message(message)


def _row(view: wire.RouteView) -> tuple[str, ...]:
    route = view.route.to_route()
    conditions = [*route.methods, str(route.path), *map(str, route.headers), *map(str, route.query)]
    return (
        route.name,
        ", ".join(route.hosts) or "any",
        " ".join(conditions),
        f"redirect {route.redirect.status}" if route.redirect is not None else _format_targets(route.to),
        output.format_cause(output.ago(view.at), view.actor, "", claimed=view.claimed),
    )


def _format_targets(targets: Sequence[Target]) -> str:
    if len(targets) == 1:
        return targets[0].selector.text
    return ", ".join(f"{target.selector.text}@{target.weight}" for target in targets)


@route.command(epilog="Example: adsum route rm canary --reason 'rolled out'")
@click.argument("name")
@reason_option("Reason of the withdrawal")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def rm(loaded: Settings, name: str, reason: str, as_json: bool) -> None:
    """Withdraw a route.

    The exit code is 3 if there is no such route. --json prints the response of DELETE /api/v1/routes/NAME.
    """

    async def work(client: Client) -> tuple[bool, wire.WriteResult]:
        existed = any(view.route.name == name for view in (await client.api.routes()).routes)
        return existed, await client.api.remove_route(name, reason=reason)

    existed, result = run_with_client(loaded, work)
    if as_json:
        output.print_json(result)
    if not existed:
        raise CommandFailed(ExitCode.NOT_FOUND, f"no route {name!r} is declared")
    if not as_json:
        output.print_message(f"route {name} is withdrawn")


@route.command(epilog="Example: adsum route check -X POST 'http://shop.example/orders/7?v=2' -H 'x-canary: 1'")
@click.argument("request", metavar="URL|PATH")
@click.option("-X", "--method", default="GET", help="Method of the request.  [default: GET]")
@click.option(
    "-H", "--header", multiple=True, metavar="'NAME: VALUE'", help="Header of the request; may be given several times."
)
@click.option("--no-default-routes", is_flag=True, help="Check for a gateway with --no-default-routes.")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_READS)
def check(
    loaded: Settings, request: str, method: str, header: tuple[str, ...], no_default_routes: bool, as_json: bool
) -> None:
    """Show which route a request would take.

    The output names the route, its target, and why the routes before it don't match. It is the same for every gateway
    of this registry, except that each gateway has its own setting for default routes. No request is sent to any
    service. --json prints the response of POST /api/v1/check-route. The exit code is 3 if no route matches.
    """
    headers = [(name.strip(), value.strip()) for name, _, value in (text.partition(":") for text in header)]
    body = wire.CheckRouteBody(request, method.upper(), headers, default_routes=not no_default_routes)
    verdict = run_with_client(loaded, lambda client: client.api.check_route(body))
    if as_json:
        output.print_json(verdict)
    else:
        _print_verdict(verdict)
    if not verdict.route:
        reasons = "".join(f": {reason}" for reason in verdict.reasons)
        raise CommandFailed(ExitCode.NOT_FOUND, f"no route matches: a gateway answers {verdict.status}{reasons}")


def _print_verdict(verdict: wire.VerdictView) -> None:
    rows = []
    if verdict.route:
        reason = (
            "a default route, unless the gateway has none"
            if verdict.default
            else " and ".join(verdict.reasons) or "matches every request"
        )
        rows.append(("route", verdict.route, reason))
        rows += [("target", target.to, _format_share(target)) for target in verdict.to]
        if verdict.to:
            rows.append(("path", verdict.path, ""))
        if verdict.location:
            rows.append(("redirect", verdict.location, str(verdict.status)))
        if verdict.preflight:
            rows.append(("answered", "by the gateway", "a CORS preflight request"))
    rows += [("no match", skipped.route, skipped.failed_condition) for skipped in verdict.skipped]
    output.print_table(("", "", ""), rows)


def _format_share(target: wire.DestinationView) -> str:
    problem = empty_targets.reason(target)
    return f"{target.share:.0%}: {problem}" if problem else f"{target.share:.0%}"


@route.command(epilog="Example: adsum route apply gateway.toml --dry-run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the changes without making them.")
@click.option("--prune", is_flag=True, help="Withdraw everything if FILE declares no route and no upstream.")
@reason_option("Reason of the changes")
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
def apply(loaded: Settings, file: Path, dry_run: bool, prune: bool, reason: str) -> None:
    """Replace all routes and upstreams by those in FILE.

    FILE is in TOML. Routes and upstreams that are not in it are withdrawn.

    \b
    [[route]]
    name = "shop"
    hosts = ["shop.example"]
    to = [{ service = "web" }]
    \b
    [[upstream]]
    service = "web"
    policy = "least_request"

    Either the whole file is applied or, if anything in it is invalid, nothing. A FILE that declares nothing withdraws
    everything only with --prune.
    """  # noqa: D301 - click reads this character as "don't fill the paragraph"
    body = read_intent(file)
    new = body.to_documents()

    async def work(client: Client) -> tuple[dict[DocumentKey, bytes], list[wire.RouteView]]:
        routes, upstreams = (await client.api.routes()).routes, (await client.api.upstreams()).upstreams
        old = wire.IntentBody([view.route for view in routes], [view.upstream for view in upstreams]).to_documents()
        if dry_run:
            return old, []
        await client.api.replace_intent(body, prune=prune, reason=reason)
        return old, (await client.api.routes()).routes

    try:
        old, routes = run_with_client(loaded, work)
    except Invalid as error:
        if error.field != "prune":
            raise
        raise CommandFailed(
            ExitCode.USAGE, f"{file} declares no route and no upstream; add --prune to withdraw all of them"
        ) from None
    changes = [("~" if key in old else "+", key) for key, document in new.items() if old.get(key) != document]
    changes += [("-", key) for key in old if key not in new]
    for sign, key in changes:
        output.print_line(f"{sign} {key}")
    output.print_message(f"{len(changes)} {'to change' if dry_run else 'changed'}, {len(new)} declared")
    _print_empty_targets(routes)
