"""The forwarder of renewals to another node. It sends renewals that arrive at about the same time in one request."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import dataclass
from typing import Final

from adsum import wire
from adsum.core.errors import AdsumError
from adsum.outage_log import OutageLog

RENEWAL_BATCH_DELAY: Final = 0.05
"""Seconds for which renewals are collected before they are sent."""
RENEWAL_ANSWER_TIMEOUT: Final = 0.4
"""Seconds that the node has to answer a renewal. Then the client gets an error, and uses another node."""
RENEWAL_REQUEST_TIMEOUT: Final = 5.0
"""Seconds after which a request is given up. It is longer, since a slow node may still renew in time."""
MAX_CONCURRENT_RENEWAL_REQUESTS: Final = 4
"""Requests under way to one node. Past it the next one waits."""
MAX_WAITING_LEASES: Final = 100_000
"""Leases that wait to be sent to one node. Past it further ones are refused."""

SendRenewals = Callable[[Sequence[wire.LeaseBody]], Awaitable[wire.RenewalResult]]

_log = logging.getLogger("adsum.peers")


@dataclass(frozen=True, slots=True)
class RenewalAnswer:
    """The answer of a node: the leases that are lost, and the services that it does not keep and so did not renew."""

    lost: Sequence[wire.LostLease]
    not_kept: Set[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Renewal:
    """The leases to renew for one client, and the future of the answer; None if the node did not answer."""

    leases: Sequence[wire.LeaseBody]
    answer: asyncio.Future[RenewalAnswer | None]


class RenewalForwarder:
    """Forwards renewals to one node with `send`."""

    def __init__(self, node: str, send: SendRenewals) -> None:
        self._node = node
        self._send = send
        self._waiting: deque[_Renewal] = deque()
        self._lease_count = 0
        self._task: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._outage = OutageLog(
            _log,
            "renewals can't be forwarded to %s, and are refused: %s",
            "renewals are forwarded to %s again",
            failure_level=logging.WARNING,
            recovery_level=logging.INFO,
        )

    async def renew(self, leases: Sequence[wire.LeaseBody]) -> RenewalAnswer | None:
        """Returns the answer of the node; None if there is none within `RENEWAL_ANSWER_TIMEOUT`."""
        if self._lease_count + len(leases) > MAX_WAITING_LEASES:
            return None
        renewal = _Renewal(leases, asyncio.get_running_loop().create_future())
        self._waiting.append(renewal)
        self._lease_count += len(leases)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="adsum-forward-renewals")
        await asyncio.wait([renewal.answer], timeout=RENEWAL_ANSWER_TIMEOUT)
        return renewal.answer.result() if renewal.answer.done() else None

    async def close(self) -> None:
        """Cancels the requests. Idempotent."""
        tasks = [*self._sending, *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(RENEWAL_BATCH_DELAY)
            while len(self._sending) >= MAX_CONCURRENT_RENEWAL_REQUESTS:
                await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            sending = asyncio.create_task(self._send_batch(self._take()), name="adsum-forward-renewals")
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    def _take(self) -> list[_Renewal]:
        """Takes what fits into one request. No instance is in it twice, since the answer does not name the holder."""
        batch, keys = list[_Renewal](), set[tuple[str, str]]()
        while self._waiting:
            next_keys = {(lease.service, lease.id) for lease in self._waiting[0].leases}
            if batch and (len(keys) + len(next_keys) > wire.MAX_RENEWALS or keys & next_keys):
                break
            keys |= next_keys
            batch.append(self._waiting.popleft())
            self._lease_count -= len(batch[-1].leases)
        return batch

    async def _send_batch(self, batch: Sequence[_Renewal]) -> None:
        result: wire.RenewalResult | None = None
        try:
            async with asyncio.timeout(RENEWAL_REQUEST_TIMEOUT):
                result = await self._send([lease for renewal in batch for lease in renewal.leases])
            self._outage.recovered(self._node)
        except AdsumError as error:
            self._outage.failed(self._node, error)
        except TimeoutError:
            self._outage.failed(self._node, f"no answer within {RENEWAL_REQUEST_TIMEOUT:g} s")
        finally:
            answers = [None] * len(batch) if result is None else _answers(batch, result)
            for renewal, answer in zip(batch, answers, strict=True):
                if not renewal.answer.done():
                    renewal.answer.set_result(answer)


def _answers(batch: Sequence[_Renewal], result: wire.RenewalResult) -> list[RenewalAnswer | None]:
    """Divides the result of a request among its renewals."""
    lost = {(lease.service, lease.id): lease for lease in result.lost}
    not_kept = frozenset(result.not_kept)
    keys = (dict.fromkeys((lease.service, lease.id) for lease in renewal.leases) for renewal in batch)
    return [RenewalAnswer([lost[key] for key in own_keys if key in lost], not_kept) for own_keys in keys]
