"""A consumer without any setting: `watching_client.py SERVICE`. It prints its usable endpoints whenever they change."""

from __future__ import annotations

import asyncio
import sys

import adsum


async def main() -> None:
    async with adsum.Client(cache=False) as client:
        resolver = client.resolver(sys.argv[1])
        channel = client.channel(sys.argv[1])
        before = ""
        async for view in resolver.watch():
            found = " ".join(sorted(f"{endpoint.id}={endpoint.status}" for endpoint in view.endpoints))
            if found != before:
                before = found
                sys.stdout.write(f"view: {found} ({channel.usable_count})\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
