"""A service as JSON. A change encodes the instances that changed, and copies their segment only."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate, compress, count
from operator import eq, is_not
from typing import Final

from adsum import wire
from adsum.core.catalog.segmented_mapping import segment_number, segments_of
from adsum.core.catalog.service_snapshot import ServiceSnapshot
from adsum.core.model import Listing
from adsum.dialects.native.asgi import Piece, PiecedBody

MAX_REPLACED: Final = 8
"""Changed instances that are replaced one by one in the text of their segment. With more, all are joined again."""


class SegmentJson:
    """The instances of one segment as JSON, with a comma after each. They are kept once, with the length of each."""

    __slots__ = ("_lengths", "listings", "text")

    def __init__(self, listings: Mapping[str, Listing], text: bytes, lengths: array[int]) -> None:
        self.listings = listings
        self.text = text
        self._lengths = lengths

    @staticmethod
    def join(listings: Mapping[str, Listing], pieces: Mapping[str, bytes]) -> SegmentJson:
        """Returns the segment of these listings. `pieces`: each of them as JSON by id."""
        encoded = list(map(pieces.__getitem__, listings))
        lengths = array("I", map(len, encoded))
        encoded.append(b"")
        return SegmentJson(listings, b",".join(encoded), lengths)

    def replace(self, listings: Mapping[str, Listing], changed: Iterable[int]) -> SegmentJson:
        """Returns the segment after the listings at these places changed. Ids and their order are the same."""
        text, lengths, values = self.text, self._lengths[:], list(listings.values())
        for place in changed:
            piece, begin = _encode(values[place]), sum(lengths[:place]) + place
            text = b"".join((text[:begin], piece, text[begin + lengths[place] :]))
            lengths[place] = len(piece)
        return SegmentJson(listings, text, lengths)

    def pieces(self) -> dict[str, bytes]:
        """Returns each instance as JSON by id, in order."""
        text, lengths = self.text, self._lengths
        ends = accumulate(lengths, lambda end, length: end + 1 + length)
        return {id: text[end - length : end] for id, length, end in zip(self.listings, lengths, ends, strict=True)}


class ServiceJson:
    """A service as JSON in the segments of its listings. An update shares the segments that did not change."""

    __slots__ = ("_segments", "body", "epoch", "service")

    def __init__(self, epoch: str, service: ServiceSnapshot) -> None:
        self.epoch = epoch
        self.service = service
        self._segments = {
            number: SegmentJson.join(listings, {id: _encode(listing) for id, listing in listings.items()})
            for number, listings in segments_of(service.listings).items()
        }
        self.body = self._join(segment.text for segment in self._segments.values())

    def update(self, service: ServiceSnapshot) -> None:
        """Updates the page to a later snapshot of the same epoch."""
        moved = _MovedPieces(self.service.listings, self._segments)
        segments: dict[int, SegmentJson] = {}
        for number, listings in segments_of(service.listings).items():
            segment = self._segments.get(number)
            if segment is None or segment.listings is not listings:
                segment = _updated(segment, listings, moved)
            segments[number] = segment
        self.service, self._segments = service, segments
        self.body = self._join(segment.text for segment in segments.values())

    def filtered(self, matches: Callable[[Listing], bool]) -> bytes:
        """Returns the page with only the instances that match."""
        texts = list[bytes]()
        for segment in self._segments.values():
            pieces = segment.pieces().values()
            texts += compress(pieces, map(matches, segment.listings.values()))
        texts.append(b"")
        return bytes(self._join([b",".join(texts)]))

    def _join(self, texts: Iterable[bytes]) -> PiecedBody:
        empty_page = wire.encode(wire.ServiceView(self.epoch, self.service.name, self.service.revision, []))
        pieces: list[Piece] = [empty_page.removesuffix(b"]}"), *filter(None, texts)]
        if len(pieces) > 1:
            pieces[-1] = memoryview(pieces[-1])[:-1]  # Without its last comma.
        pieces.append(b"]}")
        return PiecedBody(pieces)


class _MovedPieces:
    """Finds the JSON of listings that are in another segment now."""

    def __init__(self, listings: Mapping[str, Listing], segments: Mapping[int, SegmentJson]) -> None:
        self._listings = listings
        self._segments = segments
        self._pieces: dict[int, dict[str, bytes]] = {}
        """The pieces of the segments that were searched, by number."""

    def find(self, id: str, listing: Listing) -> bytes | None:
        """Returns the JSON of the listing; None if it is new."""
        if self._listings.get(id) is not listing:
            return None
        number = segment_number(self._listings, id)
        pieces = self._pieces.get(number)
        if pieces is None:
            pieces = self._pieces[number] = self._segments[number].pieces()
        return pieces[id]


def _updated(before: SegmentJson | None, listings: Mapping[str, Listing], moved: _MovedPieces) -> SegmentJson:
    known: Mapping[str, Listing] = before.listings if before is not None else {}
    if before is not None and len(known) == len(listings) and all(map(eq, known, listings)):
        changed = list(compress(count(), map(is_not, known.values(), listings.values())))
        if len(changed) <= MAX_REPLACED:
            return before.replace(listings, changed)
    pieces = before.pieces() if before is not None else {}
    for id in compress(listings, map(is_not, map(known.get, listings), listings.values())):
        listing = listings[id]
        pieces[id] = moved.find(id, listing) or _encode(listing)
    return SegmentJson.join(listings, pieces)


def _encode(listing: Listing) -> bytes:
    return wire.encode(wire.InstanceView.from_listing(listing))
