"""Commands that list instances by hand: register and deregister."""

from __future__ import annotations

import asyncio
import signal

import click

from adsum import wire
from adsum.cli import output
from adsum.cli.arguments import Key, ServiceType, as_json, reason
from adsum.cli.client import ask
from adsum.cli.exit_codes import Ended, Exit
from adsum.cli.instance_selector import instances
from adsum.cli.registration import registration_of
from adsum.cli.settings.flags import UNUSED_BY_WRITES, settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.config.serve import ClientConfig, InstanceConfig
from adsum.core.catalog.takeover import Takeover
from adsum.core.liveness.heartbeats import DRAIN_WAIT
from adsum.run.background_registrar import registrar_of


@click.command(
    epilog="Examples: adsum register db --port 5432 --address 10.0.0.7 --check tcp --ttl none; "
    "adsum register cache --port 6379 --check tcp"
)
@click.argument("service", type=ServiceType())
@settings(ClientConfig, InstanceConfig, but=("cache_max_age", "service"))
def register(loaded: Settings, service: str) -> None:
    """List an instance that can't register itself, and keep it listed until interrupted.

    While this runs it renews the lease; on Ctrl-C or SIGTERM it drains and deregisters. With --ttl none it lists the
    instance for good and ends at once: then only checks tell how it fares, and `adsum deregister` takes it out.
    """
    config = loaded.of(InstanceConfig)
    if config.ttl is None:
        output.say(ask(loaded, lambda client: _once(client, loaded, service)))
    else:
        with output.unblocked():  # A lease is kept whether anybody reads us or not.
            ask(loaded, lambda client: _until_told(client, loaded, service))


async def _once(client: Client, loaded: Settings, service: str) -> str:
    config = loaded.of(InstanceConfig)
    address = config.address or await client.source.local_address()
    registration = registration_of(loaded, service, config.port, address)
    instance = registration.instance
    takeover = Takeover.FORCE if config.take_over else Takeover.USUAL
    await client.api.register(service, instance.id, wire.RegistrationBody.of(registration, takeover))
    return f"{instance.key} is listed at {instance.authority} until it is deregistered"


async def _until_told(client: Client, loaded: Settings, service: str) -> None:
    config = loaded.of(InstanceConfig)
    registration = registration_of(loaded, service, config.port)
    registrar = registrar_of(client, registration, config.address, DRAIN_WAIT, take_over=config.take_over)
    key = registration.key
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, told.set)
    await registrar.start()
    if registrar.registered and registrar.instance is not None:
        output.say(f"{key} is listed at {registrar.instance.authority}; Ctrl-C takes it out")
    else:
        why = registrar.kept_out or "no registry answers"
        output.say(f"{key} is not listed yet: {why}; trying on, Ctrl-C ends that")
    await told.wait()
    drained = await registrar.drain(reason="adsum register was told to end")
    await registrar.stop("adsum register was told to end")
    if drained.unaware:
        raise Ended(Exit.TIMEOUT, f"{key} is deregistered, but {drained.why}")
    output.say(f"{key} is deregistered" + (f"; {drained}" if drained.lost_count else ""))


@click.command(epilog="Example: adsum deregister orders/web1 --reason 'the machine is gone'")
@reason("Why it leaves")
@as_json
@settings(ClientConfig, but=UNUSED_BY_WRITES)
@instances()
def deregister(loaded: Settings, key: Key, reason: str, as_json: bool) -> None:
    """Take an instance out of the catalog.

    For what can't do so itself any more. Drain it first if it still works. A program that still renews registers again
    within seconds: stop it, or use `adsum maintenance`.

    --json prints the answer of DELETE /api/v1/services/SERVICE/instances/ID.
    """

    async def work(client: Client) -> wire.Written:
        await client.api.instance(key.service, key.id)  # Deregistering is idempotent; a slip of the finger is not.
        return await client.api.deregister(key.service, key.id, reason=reason)

    written = ask(loaded, work)
    if as_json:
        output.json(written)
    else:
        output.say(f"{key} is deregistered")
