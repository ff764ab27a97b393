"""The commands `adsum register` and `adsum deregister`."""

from __future__ import annotations

import asyncio
import signal

import click

from adsum import wire
from adsum.cli import output
from adsum.cli.arguments import InstanceRef, ServiceType, json_option, reason_option
from adsum.cli.client import run_with_client
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.instance_selector import for_each_instance
from adsum.cli.registration import build_registration
from adsum.cli.settings.flags import UNUSED_BY_WRITES, with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.client import Client
from adsum.config.client import ClientConfig
from adsum.config.instance import InstanceConfig
from adsum.core.catalog.takeover import Takeover
from adsum.core.liveness.heartbeats import DEFAULT_DRAIN_WAIT
from adsum.run.background_registrar import make_registrar


@click.command(
    epilog="Examples: adsum register db --port 5432 --address 10.0.0.7 --check tcp --ttl none; "
    "adsum register cache --port 6379 --check tcp"
)
@click.argument("service", type=ServiceType())
@with_settings(ClientConfig, InstanceConfig, exclude=("cache_max_age", "service"))
def register(loaded: Settings, service: str) -> None:
    """Register an instance that can't register itself, and renew its lease until interrupted.

    On Ctrl-C or SIGTERM the command drains and deregisters the instance. With --ttl none it registers the instance
    without a lease and returns at once: only checks determine its status then, and `adsum deregister` removes it.
    """
    config = loaded.get(InstanceConfig)
    if config.ttl is None:
        output.print_message(run_with_client(loaded, lambda client: _register_without_lease(client, loaded, service)))
    else:
        with output.non_blocking():  # The lease is renewed even if nobody reads the output.
            run_with_client(loaded, lambda client: _register_until_signal(client, loaded, service))


async def _register_without_lease(client: Client, loaded: Settings, service: str) -> str:
    config = loaded.get(InstanceConfig)
    address = config.address or await client.source.local_address()
    registration = build_registration(loaded, service, config.port, address)
    instance = registration.instance
    takeover = Takeover.FORCE if config.take_over else Takeover.USUAL
    await client.api.register(service, instance.id, wire.RegistrationBody.from_registration(registration, takeover))
    return f"{instance.key} is listed at {instance.authority} until it is deregistered"


async def _register_until_signal(client: Client, loaded: Settings, service: str) -> None:
    config = loaded.get(InstanceConfig)
    registration = build_registration(loaded, service, config.port)
    registrar = make_registrar(client, registration, config.address, DEFAULT_DRAIN_WAIT, take_over=config.take_over)
    key = registration.key
    signalled, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    await registrar.start()
    if registrar.registered and registrar.instance is not None:
        output.print_message(f"{key} is listed at {registrar.instance.authority}; Ctrl-C deregisters it")
    else:
        problem = registrar.conflict or registrar.denial or "no registry answers"
        output.print_message(f"{key} is not listed yet: {problem}; trying again until Ctrl-C")
    await signalled.wait()
    drain = await registrar.drain(reason="adsum register was stopped")
    await registrar.stop("adsum register was stopped")
    if drain.unacknowledged:
        raise CommandFailed(ExitCode.TIMEOUT, f"{key} is deregistered, but {drain.reason}")
    output.print_message(f"{key} is deregistered" + (f"; {drain}" if drain.lost_count else ""))


@click.command(epilog="Example: adsum deregister orders/web1 --reason 'the machine is gone'")
@reason_option("Reason of the removal")
@json_option
@with_settings(ClientConfig, exclude=UNUSED_BY_WRITES)
@for_each_instance()
def deregister(loaded: Settings, key: InstanceRef, reason: str, as_json: bool) -> None:
    """Remove an instance from the catalog.

    Use it for an instance that can no longer deregister itself. If it still serves, drain it first. A program that
    still renews its lease registers again within seconds: stop it, or use `adsum maintenance`.

    --json prints the response of DELETE /api/v1/services/SERVICE/instances/ID.
    """

    async def work(client: Client) -> wire.WriteResult:
        # Deregistering is idempotent: it would not report an id with a typing error. This look-up does.
        await client.api.instance(key.service, key.id)
        return await client.api.deregister(key.service, key.id, reason=reason)

    result = run_with_client(loaded, work)
    if as_json:
        output.print_json(result)
    else:
        output.print_message(f"{key} is deregistered")
