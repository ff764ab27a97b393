"""The latest changes of a service, in the order of their revisions. A batch costs what it adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, overload

from msgspec import Struct

from adsum.core.memory_sizes import text_size
from adsum.core.model import Key
from adsum.core.provenance import Provenance

RECENT_CHANGE_BYTES: Final = 400
"""Bytes of a remembered change without its reason."""
_BYTES_WITHOUT_REASON: Final = RECENT_CHANGE_BYTES + text_size("")


class RecentChange(Struct, frozen=True, gc=False):
    """A change of one instance at a revision, without the listing. `listed`: whether the change left it listed."""

    revision: int
    key: Key
    provenance: Provenance
    listed: bool

    @property
    def id(self) -> str:
        return self.key.id

    @property
    def size(self) -> int:
        """Bytes of memory, estimated."""
        reason = self.provenance.reason
        return RECENT_CHANGE_BYTES + text_size(reason) if reason else _BYTES_WITHOUT_REASON


class RecentChanges(Sequence[RecentChange]):
    """Recent changes, the latest last. They never change.

    They are a part of a list that later ones extend and share. When half of the list is no longer needed, or when it
    was extended in another way already, the part is copied.
    """

    __slots__ = ("_begin", "_end", "_shared")

    def __init__(self, shared: list[RecentChange], begin: int, end: int) -> None:
        self._shared = shared
        self._begin = begin
        self._end = end

    def __len__(self) -> int:
        return self._end - self._begin

    @overload
    def __getitem__(self, index: int) -> RecentChange: ...
    @overload
    def __getitem__(self, index: slice) -> list[RecentChange]: ...
    def __getitem__(self, index: int | slice) -> RecentChange | list[RecentChange]:
        return self._shared[self._begin : self._end][index]

    def __iter__(self) -> Iterator[RecentChange]:
        return iter(self._shared[self._begin : self._end])

    def __reversed__(self) -> Iterator[RecentChange]:
        return map(self._shared.__getitem__, range(self._end - 1, self._begin - 1, -1))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecentChanges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a mapping

    def __repr__(self) -> str:
        return f"RecentChanges({list(self)!r})"

    def extended(self, changes: Sequence[RecentChange], limit: int) -> tuple[RecentChanges, Sequence[RecentChange]]:
        """Returns the changes after later ones, at most `limit`, and those that are no longer among them.

        The changes of one revision are remembered together or not at all.
        """
        shared, begin, end = self._shared, self._begin, self._end
        if end != len(shared) or begin > limit or begin == end:
            shared = shared[begin:end]
            begin, end = 0, len(shared)
        shared += changes
        end = len(shared)
        first = begin
        if end - begin > limit:
            first = end - limit
            last_dropped = shared[first - 1].revision
            while first < end and shared[first].revision == last_dropped:
                first += 1
        return RecentChanges(shared, first, end), shared[begin:first]


NO_RECENT_CHANGES: Final = RecentChanges([], 0, 0)
