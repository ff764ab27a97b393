"""A program that uses the library of any release: `python exchange.py URL`. It imports nothing of the tests.

It uses only functions that the first release had, and writes the results to standard output.
"""

import asyncio
import sys
from pathlib import Path

import adsum


def write_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")


async def main(url: str) -> None:
    async with adsum.Client(url, cache=False) as client:
        channel = client.channel("orders")
        async with client.register("orders", 8000, id="o1", address="127.0.0.1", ttl=30) as registrar:
            await channel.ready(timeout=20)
            with channel.pick() as pick:
                write_line(f"picked {pick.endpoint.id} {pick.endpoint.url}")
            drained = await registrar.drain(10)
            write_line(f"drained {drained.done}")
        async for view in client.resolver("orders").watch():
            if not view.endpoints:
                write_line("gone")
                break


write_line(f"{Path(adsum.__file__).parents[1]}")
asyncio.run(main(sys.argv[1]))
