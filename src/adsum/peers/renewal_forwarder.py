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
"""Seconds that the node has to answer, from the first renewal of a request on. Then the clients of the request get an
error, and use another node."""
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


SettleRenewal = Callable[[RenewalAnswer | None], None]
"""Takes the answer to the renewals of one client; None if the node does not answer in time. Returns at once."""

_ALL_RENEWED: Final = RenewalAnswer(())


class _Request:
    """The renewals of several clients, which are sent together."""

    __slots__ = ("clients", "keys", "leases", "timer")

    def __init__(self) -> None:
        self.leases: list[wire.LeaseBody] = []
        self.keys: set[tuple[str, str]] = set()
        """The instances. None is in a request twice, since the answer does not name the holder."""
        self.clients: list[tuple[Sequence[wire.LeaseBody], SettleRenewal]] = []
        """The renewals of each client that waits for an answer, and what takes it."""
        self.timer: asyncio.TimerHandle | None = None
        """Ends the wait of the clients."""

    def add(self, leases: Sequence[wire.LeaseBody], settle: SettleRenewal) -> bool:
        """Adds the renewals of a client. Returns False, and does nothing, if they do not fit."""
        keys = {(lease.service, lease.id) for lease in leases}
        if self.leases and (len(self.keys) + len(keys) > wire.MAX_RENEWALS or not self.keys.isdisjoint(keys)):
            return False
        self.keys |= keys
        self.leases += leases
        self.clients.append((leases, settle))
        return True

    def settle(self, result: wire.RenewalResult | None) -> None:
        """Gives each client the answer to its renewals. Does nothing for those that have one already."""
        if self.timer is not None:
            self.timer.cancel()
        clients, self.clients = self.clients, []
        lost = {(lease.service, lease.id): lease for lease in result.lost} if result is not None else {}
        not_kept = frozenset(result.not_kept) if result is not None else frozenset[str]()
        answer = None if result is None else RenewalAnswer((), not_kept) if not_kept else _ALL_RENEWED
        for leases, settle in clients:
            if lost:
                own_keys = dict.fromkeys((lease.service, lease.id) for lease in leases)
                answer = RenewalAnswer(tuple(lost[key] for key in own_keys if key in lost), not_kept)
            try:
                settle(answer)
            except Exception:
                # The other clients of the request must get their answers.
                _log.exception("the answer to a renewal could not be sent")


class RenewalForwarder:
    """Forwards renewals to one node with `send`."""

    def __init__(self, node: str, send: SendRenewals) -> None:
        self._node = node
        self._send = send
        self._collecting: _Request | None = None
        """The request that takes further renewals."""
        self._collection_end: asyncio.TimerHandle | None = None
        self._waiting: deque[_Request] = deque()
        """Requests that wait because too many are under way."""
        self._lease_count = 0
        self._sending: dict[asyncio.Task[None], _Request] = {}
        self._outage = OutageLog(
            _log,
            "renewals can't be forwarded to %s, and are refused: %s",
            "renewals are forwarded to %s again",
            failure_level=logging.WARNING,
            recovery_level=logging.INFO,
        )

    def renew(self, leases: Sequence[wire.LeaseBody], settle: SettleRenewal) -> None:
        """Forwards renewals, and calls `settle` once: at the latest after `RENEWAL_ANSWER_TIMEOUT`."""
        if self._lease_count + len(leases) > MAX_WAITING_LEASES:
            settle(None)
            return
        self._lease_count += len(leases)
        if self._collecting is not None:
            if self._collecting.add(leases, settle):
                return
            self._end_collection()
        loop = asyncio.get_running_loop()
        request = self._collecting = _Request()
        request.add(leases, settle)
        request.timer = loop.call_later(RENEWAL_ANSWER_TIMEOUT, request.settle, None)
        self._collection_end = loop.call_later(RENEWAL_BATCH_DELAY, self._end_collection)

    async def close(self) -> None:
        """Cancels the requests. Their clients get no answer of the node. Idempotent."""
        self._end_collection()
        requests, tasks = [*self._waiting, *self._sending.values()], [*self._sending]
        self._waiting.clear()
        for request in requests:
            request.settle(None)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end_collection(self) -> None:
        """Sends what was collected, or has it wait."""
        if self._collection_end is not None:
            self._collection_end.cancel()
        request, self._collecting = self._collecting, None
        if request is not None:
            self._waiting.append(request)
            self._send_next()

    def _send_next(self) -> None:
        while self._waiting and len(self._sending) < MAX_CONCURRENT_RENEWAL_REQUESTS:
            request = self._waiting.popleft()
            self._lease_count -= len(request.leases)
            task = asyncio.get_running_loop().create_task(self._run(request), name="adsum-forward-renewals")
            self._sending[task] = request
            task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        if not task.cancelled():
            self._send_next()

    async def _run(self, request: _Request) -> None:
        """Sends a request, and settles it."""
        result: wire.RenewalResult | None = None
        try:
            async with asyncio.timeout(RENEWAL_REQUEST_TIMEOUT):
                result = await self._send(request.leases)
            self._outage.recovered(self._node)
        except AdsumError as error:
            self._outage.failed(self._node, error)
        except TimeoutError:
            self._outage.failed(self._node, f"no answer within {RENEWAL_REQUEST_TIMEOUT:g} s")
        finally:
            request.settle(result)
