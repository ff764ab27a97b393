"""A history of operations on a registry in real time, and a check whether it is consistent.

Every operation concerns one instance. An acknowledged operation has a revision; one without an answer is in doubt: it
may have been done or not. A consistent history follows real time: an operation that began after another one was
acknowledged has a later revision. The instances that are listed in the end are those of the last acknowledged
operations, unless a later operation is in doubt.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import count
from random import Random

import httpx

from tests.scenarios.processes import JsonApi

CHURN_SERVICES = 6
RETRY_PAUSE = 0.2


@dataclass(slots=True)
class HistoryOperation:
    """An operation. `revision` is None while it is in doubt. Instants are monotonic seconds."""

    id: str
    is_registration: bool
    began: float
    ended: float = 0.0
    revision: int | None = None


class OperationHistory:
    """The operations of all writers."""

    def __init__(self) -> None:
        self.operations: list[HistoryOperation] = []

    @property
    def acknowledged(self) -> int:
        return sum(operation.revision is not None for operation in self.operations)

    def check(self, found: set[str]) -> None:
        """Raises `AssertionError` if the history is inconsistent with `found`, the instances listed in the end."""
        done = sorted(
            (operation for operation in self.operations if operation.revision is not None),
            key=lambda operation: operation.ended,
        )
        latest, position = 0, 0
        for operation in sorted(done, key=lambda operation: operation.began):
            while position < len(done) and done[position].ended < operation.began:
                latest = max(latest, done[position].revision or 0)
                position += 1
            assert (operation.revision or 0) > latest, f"{operation} began after revision {latest} was acknowledged"
        for id, operations in self._by_id().items():
            certain = [operation for operation in operations if operation.revision is not None]
            after = certain[-1].ended if certain else 0.0
            doubts = {
                operation.is_registration
                for operation in operations
                if operation.revision is None and operation.began >= after
            }
            possible = doubts | {certain[-1].is_registration if certain else False}
            assert (id in found) in possible, f"{id} is {'' if id in found else 'not '}listed after {operations}"

    def _by_id(self) -> dict[str, list[HistoryOperation]]:
        found: dict[str, list[HistoryOperation]] = {}
        for operation in self.operations:
            found.setdefault(operation.id, []).append(operation)
        return found


class HistoryWriter:
    """A writer that registers and deregisters instances of its own, one after another, at a node that answers."""

    def __init__(self, history: OperationHistory, urls: list[str], number: int) -> None:
        self._history = history
        self._apis = [JsonApi(url) for url in urls]
        self._number = number
        self._rng = Random(number)
        self._listed: set[str] = set()
        self._numbers = count()

    async def write(self) -> None:
        """Writes until cancelled."""
        try:
            while True:
                await self._operate()
                await asyncio.sleep(self._rng.uniform(0.0, 0.1))
        finally:
            for api in self._apis:
                await api.http.aclose()

    async def _operate(self) -> None:
        leaves = bool(self._listed) and self._rng.random() < 0.4
        id = self._rng.choice(sorted(self._listed)) if leaves else f"w{self._number}-{next(self._numbers)}"
        operation = HistoryOperation(id, not leaves, time.monotonic())
        self._history.operations.append(operation)
        self._listed.discard(id)  # An instance in doubt is not used again.
        try:
            answer = await self._request(id, registers=not leaves)
        except httpx.HTTPError:
            answer = None
        operation.ended = time.monotonic()
        if answer is None or answer.status_code >= 500:
            assert answer is None or answer.status_code != 503 or answer.headers.get("retry-after"), answer.text
            self._apis.append(self._apis.pop(0))
            await asyncio.sleep(RETRY_PAUSE)
            return
        assert answer.status_code in (200, 201), answer.text
        operation.revision = answer.json()["revision"]
        if not leaves:
            self._listed.add(id)

    async def _request(self, id: str, *, registers: bool) -> httpx.Response:
        path = f"/services/churn-{self._number % CHURN_SERVICES}/instances/{id}"
        http = self._apis[0].http
        if registers:
            return await http.put(path, json={"port": 8000, "ttl": None}, timeout=4.0)
        return await http.delete(path, timeout=4.0)
