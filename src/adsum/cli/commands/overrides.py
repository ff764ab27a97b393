"""The commands `adsum drain`, `adsum maintenance` and `adsum resume`: set and remove the override of an instance."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import click
import msgspec

from adsum import wire
from adsum.cli import output
from adsum.cli.arguments import DurationType, InstanceRef, json_option, reason_option
from adsum.cli.client import run_with_client
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.instance_selector import for_each_instance
from adsum.cli.settings.flags import UNUSED_BY_WRITES, with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.client.errors import AnswerLost, InstanceForgotten
from adsum.client.native.waiting_request import ROUND_PAUSE
from adsum.config.client import ClientConfig
from adsum.core.errors import UnknownInstance
from adsum.core.model import MAX_OVERRIDE

MAX_CONSUMERS_SHOWN: Final = 20
"""The most consumers that a drain names; --json prints more."""

_for_option = click.option(
    "--for", "duration", type=DurationType(1.0, MAX_OVERRIDE), help="End it automatically after this time."
)


def _start_drains(loaded: Settings, keys: Sequence[InstanceRef], options: Mapping[str, Any]) -> None:
    """Start to drain all instances before waiting for any, so that no call moves from one of them to the next."""
    body = wire.OverrideBody("draining", options["reason"], options["duration"])

    async def work(client: Client) -> None:
        for key in keys:
            with suppress(UnknownInstance):  # It has left meanwhile.
                await client.api.override(key.service, key.id, body)

    run_with_client(loaded, work)


@click.command(
    epilog="Examples: adsum drain orders/web1 --reason 'deploy 1.4' && systemctl stop orders; "
    "adsum drain --at 10.0.0.7 --reason 'new disks'"
)
@click.option(
    "--wait/--no-wait", default=True, help="Wait until no consumer calls the instance any more.  [default: wait]"
)
@click.option(
    "--timeout",
    type=DurationType(0.0, wire.MAX_WAIT),
    default="30",
    help="Longest wait, for all instances together.  [default: 30 s]",
)
@_for_option
@reason_option("Reason of the drain")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
@for_each_instance(_start_drains)
def drain(
    loaded: Settings, key: InstanceRef, wait: bool, timeout: float, duration: float | None, reason: str, as_json: bool
) -> None:
    """Stop calls to an instance, and wait until they have stopped.

    When the exit code is 0, every cooperating consumer has confirmed that it no longer calls the instance. You can then
    stop the instance without losing a request. If consumers have not confirmed in time, the command names them, the
    exit code is 124, and the instance stays draining. `adsum resume` ends the drain.

    A consumer that has been silent for some 8 s is lost: the command names it, but does not wait for it. If the
    registry restarts meanwhile, the command repeats the request when it is back.

    --json prints the response of PUT /api/v1/services/SERVICE/instances/ID/override, also when the exit code is 124.
    """
    wait = wait and timeout > 0.0
    body = wire.OverrideBody("draining", reason, duration, wait=timeout if wait else 0.0)
    try:
        result = run_with_client(loaded, lambda client: _request_drain(client, key, body))
    except AnswerLost as error:
        problem = f"the drain of {key} was requested, but its result is unknown: {error.reason}"
        raise CommandFailed(ExitCode.TIMEOUT, problem) from None
    if as_json:
        output.print_json(result)
    if wait and result.unacknowledged:
        lines = [*_unconfirmed_lines(key, result, timeout), *_lost_lines(result)]
        raise CommandFailed(ExitCode.TIMEOUT, "\n".join(lines))
    if as_json:
        return
    output.print_message(f"{key} is draining" + ("; no cooperating consumer calls it any more" if wait else ""))
    for line in _lost_lines(result):
        output.print_message(line)


async def _request_drain(client: Client, key: InstanceRef, body: wire.OverrideBody) -> wire.WriteResult:
    """Request a drain and return the response.

    If the registry restarted and lost its state, the request is repeated once the program has registered again, which
    it does at its next renewal. Raises `CommandFailed` if it does not within the wait.
    """
    now = asyncio.get_running_loop().time
    remaining, deadline, forgotten = body.wait, now() + body.wait, False
    while True:
        try:
            return await client.api.override(key.service, key.id, msgspec.structs.replace(body, wait=remaining))
        except UnknownInstance as error:
            forgotten = forgotten or isinstance(error, InstanceForgotten)
            if not forgotten or (await client.api.changes(key.service, key.id, 1)).changes:
                raise
        if now() + ROUND_PAUSE >= deadline:
            raise CommandFailed(
                ExitCode.NOT_FOUND,
                f"{key} is not listed any more: the registry restarted and lost its state, and the program has not "
                f"registered again within {body.wait:g} s",
            )
        await asyncio.sleep(ROUND_PAUSE)
        remaining = deadline - now()


def _unconfirmed_lines(key: InstanceRef, result: wire.WriteResult, timeout: float) -> list[str]:
    """Returns the lines that name the consumers which have not confirmed the drain."""
    consumers = "1 consumer has" if result.unacknowledged == 1 else f"{result.unacknowledged} consumers have"
    title = f"{key} is draining, but {consumers} not confirmed within {timeout:g} s that they no longer call it:"
    return [title, *_consumer_lines(result.waiting, result.unacknowledged)]


def _lost_lines(result: wire.WriteResult) -> list[str]:
    """Returns the lines that name the lost consumers, for which the drain did not wait."""
    if not result.lost:
        return []
    return ["lost, and not waited for (silent for too long):", *_consumer_lines(result.lost, result.lost_count)]


def _consumer_lines(consumers: Sequence[wire.ConsumerView], count: int) -> list[str]:
    """Returns a line for each of the first `MAX_CONSUMERS_SHOWN` consumers, of `count` in all."""
    lines = [f"  {_describe(consumer)}: {consumer.reason}" for consumer in consumers[:MAX_CONSUMERS_SHOWN]]
    return lines + ([f"  and {count - len(lines)} more"] if count > len(lines) else [])


def _describe(consumer: wire.ConsumerView) -> str:
    address = f" at {consumer.address}" if consumer.address else ""
    known = [f"known to {consumer.node}"] if consumer.node and consumer.node != consumer.name else []
    known += [f"token {consumer.principal}"] if consumer.principal else []
    origin = f" ({', '.join(known)})" if known else ""
    return f"{consumer.name or 'an unnamed consumer'}{address}{origin}"


@click.command(epilog="Example: adsum maintenance orders/web1 --for 1h --reason 'new disks'")
@_for_option
@reason_option("Reason of the maintenance")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
@for_each_instance()
def maintenance(loaded: Settings, key: InstanceRef, duration: float | None, reason: str, as_json: bool) -> None:
    """Take an instance out of use for some time.

    It stays listed with the author and the reason, and its checks go on. It is not called until `adsum resume`, or
    until the time of --for is over. After a restart of the registry, the time of --for starts again.

    --json prints the response of PUT /api/v1/services/SERVICE/instances/ID/override.
    """
    body = wire.OverrideBody("maintenance", reason, duration)
    result = run_with_client(loaded, lambda client: client.api.override(key.service, key.id, body))
    if as_json:
        output.print_json(result)
        return
    until = f" for {output.format_duration(duration)}" if duration else " until it is resumed"
    output.print_message(f"{key} is in maintenance{until}")


@click.command(epilog="Example: adsum resume orders/web1")
@reason_option("Reason of the return")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
@for_each_instance()
def resume(loaded: Settings, key: InstanceRef, reason: str, as_json: bool) -> None:
    """End a drain or maintenance: the lease and the checks of the instance decide again whether it is called.

    The command prints the new status of the instance. --json prints the response of DELETE
    /api/v1/services/SERVICE/instances/ID/override.
    """

    async def work(client: Client) -> tuple[wire.WriteResult, wire.InstanceDetail]:
        result = await client.api.resume(key.service, key.id, reason=reason)
        return result, await client.api.instance(key.service, key.id)

    result, detail = run_with_client(loaded, work)
    if as_json:
        output.print_json(result)
    else:
        output.print_message(f"{key} is {detail.instance.status}")
