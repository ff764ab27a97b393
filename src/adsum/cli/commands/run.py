"""The command `adsum run`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

import click

from adsum.cli import output
from adsum.cli.exit_codes import CommandFailed, ExitCode
from adsum.cli.registration import build_registration
from adsum.cli.settings.flags import with_settings
from adsum.cli.settings.loader import Settings
from adsum.client.credentials.choice import choose_registry
from adsum.config.client import ClientConfig
from adsum.config.instance import InstanceConfig
from adsum.config.run import RunConfig
from adsum.core.errors import Invalid
from adsum.core.model import Registration
from adsum.run.child_process import CannotStart
from adsum.run.port import PortClaim, claim_free_port, first_answering_host
from adsum.run.supervisor import ProgramPlan, Supervisor

REPEAT_INTERVAL: Final = 60.0
"""Seconds within which the same warning is logged once."""


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="Examples: adsum run --service orders --port 8000 --check http:/health -- gunicorn app:app; "
    "adsum run --service hello --port 0 -- sh -c 'exec python3 -m http.server $PORT'",
)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.argument("argv", metavar="-- COMMAND [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@with_settings(ClientConfig, InstanceConfig, RunConfig, exclude=("cache_max_age",))
def run(loaded: Settings, quiet: bool, argv: tuple[str, ...]) -> int:
    """Run a program, register it while it answers, and drain it before it stops.

    Starts COMMAND with PORT, ADSUM_SERVICE, ADSUM_ID, ADSUM_PORT and ADSUM_URL set; --port 0 (the default) picks a free
    port. Registers it once its checks pass on this host (without checks: once the port accepts connections), and renews
    its lease. On SIGTERM or Ctrl-C it drains the instance first, so that no request is lost; then the program gets the
    signal, and is killed if it has not ended in time. A second signal skips the current step. Other signals are
    forwarded at once.

    The program is not started if another one already answers on its port, unless --shared-port is given. If a live
    process at another address or port holds the id, registration is tried again until that process leaves or stops
    answering.

    If the registry is down, the program runs all the same and is registered as soon as a registry answers. If the
    program ends by itself, it is deregistered at once, and its exit status is recorded as the reason.

    The exit code is that of the program; 128+n if signal n killed it, 126 if it can't be executed, 127 if it does not
    exist, 124 if it never answered, 75 if another program answers on its port.
    """
    with output.non_blocking():
        return _run(loaded, _make_logger(quiet), argv)


def _run(loaded: Settings, log: Callable[[str], None], argv: tuple[str, ...]) -> int:
    instance = loaded.get(InstanceConfig)
    if not instance.service:
        raise click.UsageError("--service is required: the name of the service that the program provides.")
    claim = claim_free_port(Random()) if instance.port == 0 else PortClaim(instance.port, None)
    registration = build_registration(loaded, instance.service, claim.port)
    client = loaded.get(ClientConfig)
    _check_client(loaded, client)
    plan = ProgramPlan(
        argv=argv,
        environ=_environ(registration, client),
        registration=registration,
        address=instance.address,
        client=client,
        config=loaded.get(RunConfig),
        take_over=instance.take_over,
    )
    try:
        _check_port_is_unused(plan)
        return asyncio.run(Supervisor(plan, log).run())
    except CannotStart as error:
        output.print_message(f"adsum run: {error}")
        return error.code
    finally:
        claim.release()


def _check_client(loaded: Settings, client: ClientConfig) -> None:
    """Raises `ConfigError` before the program starts if an address, a token or an authority can't be used."""
    try:
        _, credentials = choose_registry(
            client.url, "url", token_file=client.token_file, authority_file=client.authority_file
        )
        if credentials is not None:
            credentials.make_ssl_context()
    except Invalid as error:
        raise loaded.config_error(error) from None


def _check_port_is_unused(plan: ProgramPlan) -> None:
    """Raises `CommandFailed` if another program already answers on the port: it would be registered instead."""
    port = plan.registration.instance.port
    host = "" if plan.config.shared_port else first_answering_host(port, plan.hosts)
    if host:
        raise CommandFailed(
            ExitCode.TRY_AGAIN,
            f"another program answers at {host}, port {port}, so this one was not started: the other one would be "
            "registered in its place; stop the other one, choose another --port or --address, or add --shared-port if "
            "both serve it",
        )


def _environ(registration: Registration, client: ClientConfig) -> dict[str, str]:
    """Returns the environment of the program: that of this process, and the variables that describe the instance."""
    instance = registration.instance
    variables = {
        "PORT": str(instance.port),
        "ADSUM_PORT": str(instance.port),
        "ADSUM_SERVICE": instance.service,
        "ADSUM_ID": instance.id,
        "ADSUM_URL": client.url,
        "ADSUM_ZONE": client.zone,
        # The files, and not what they contain: the program finds its own registry with them.
        "ADSUM_TOKEN_FILE": str(Path(client.token_file).absolute()) if client.token_file else "",
        "ADSUM_AUTHORITY_FILE": str(Path(client.authority_file).absolute()) if client.authority_file else "",
    }
    return {**os.environ, **{name: value for name, value in variables.items() if value}}


def _make_logger(quiet: bool) -> Callable[[str], None]:
    """Log to standard error, each line with the prefix `adsum run:`; returns the function that logs a line."""
    handler = output.MessageHandler()
    handler.setFormatter(logging.Formatter("adsum run: %(message)s"))
    handler.addFilter(_RepetitionFilter())
    logger = logging.getLogger("adsum")
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    return logging.getLogger("adsum.run").info


class _RepetitionFilter(logging.Filter):
    """A filter that drops a warning if the same one was logged within `REPEAT_INTERVAL`."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        last = self._logged_at.get(record.msg)
        if last is not None and record.created - last < REPEAT_INTERVAL:
            return False
        self._logged_at[record.msg] = record.created
        return True
