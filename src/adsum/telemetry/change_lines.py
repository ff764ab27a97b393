"""The log lines of changes, one for each. What many lines have in common is formatted once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import msgspec

from adsum.core.catalog.changes import Change, Fact
from adsum.core.catalog.documents import Edit
from adsum.core.provenance import Cause
from adsum.telemetry.logs import LineEntry, LogFields, format_fields, format_time, json_line, text_line

LEVEL: Final = "info"
MESSAGE: Final = "change"
MAX_CACHED_ENDINGS: Final = 256
"""Endings of lines that are cached: those of one cause and actor are the same. Past it those used longest ago are
formatted again. One takes at most about 6 KB, and 500 bytes as a rule."""

ChangeLines = Callable[[int, Sequence[Fact]], bytes]
"""Formats the lines of facts that were committed under a revision."""


def text_change_lines(revision: int, facts: Sequence[Fact]) -> bytes:
    """Returns the lines as text: those that `text_line` returns for `change_entry`."""
    head = f"{LEVEL:<7} {MESSAGE} revision={revision}"
    lines = []
    for fact in facts:
        if isinstance(fact, Edit) or fact.forgets_service:
            lines.append(text_line(*change_entry(revision, fact)).decode())
        else:
            service, id = fact.key  # Neither has characters that need quotes.
            lines.append(
                f"{format_time(fact.provenance.at)} {head} service={service} id={id}{_text_ending(*_marks(fact))}"
            )
    return "".join(lines).encode(errors="backslashreplace")


def json_change_lines(revision: int, facts: Sequence[Fact]) -> bytes:
    """Returns the lines as JSON objects: those that `json_line` returns for `change_entry`."""
    head = f'"level":"{LEVEL}","message":"{MESSAGE}","revision":{revision}'
    lines = []
    for fact in facts:
        if isinstance(fact, Edit) or fact.forgets_service:
            lines.append(json_line(*change_entry(revision, fact)).decode())
        else:
            service, id = fact.key  # Neither has characters that need an escape.
            lines.append(
                f'{{"at":"{format_time(fact.provenance.at)}",{head},"service":"{service}","id":"{id}"'
                f"{_json_ending(*_marks(fact))}"
            )
    return "".join(lines).encode()


CHANGE_LINES: Final[Mapping[str, ChangeLines]] = MappingProxyType(
    {"json": json_change_lines, "text": text_change_lines}
)
"""Value of the setting `log_format` → the formatter of changes."""


def change_entry(revision: int, fact: Fact) -> LineEntry:
    """Returns the log line of a fact."""
    provenance = fact.provenance
    fields: dict[str, object] = {"revision": revision}
    if isinstance(fact, Edit):
        fields[fact.key.kind.value] = fact.key.name
        fields |= _provenance_fields(
            provenance.cause, provenance.actor, provenance.claimed, provenance.peer, provenance.reason
        )
    else:
        fields |= {"service": fact.key.service, "id": fact.key.id, **_ending(*_marks(fact))}
    return provenance.at, LEVEL, MESSAGE, fields


_Marks = tuple[str, Cause, str, str, str, str]
"""The status after a change, and its cause, actor, claimed actor, peer and reason."""


def _marks(change: Change) -> _Marks:
    """Returns what many changes of a batch have in common."""
    listing, provenance = change.listing, change.provenance
    status = listing.status if listing is not None else "gone"
    return status, provenance.cause, provenance.actor, provenance.claimed, provenance.peer, provenance.reason


def _ending(status: str, cause: Cause, actor: str, claimed: str, peer: str, reason: str) -> LogFields:
    return {"status": str(status), **_provenance_fields(cause, actor, claimed, peer, reason)}


def _provenance_fields(cause: Cause, actor: str, claimed: str, peer: str, reason: str) -> dict[str, object]:
    return {"cause": cause.value, "actor": actor, "claimed": claimed, "peer": peer, "reason": reason}


@lru_cache(MAX_CACHED_ENDINGS)
def _text_ending(*marks: str) -> str:
    return f"{format_fields(_ending(*marks))}\n"  # type: ignore[arg-type]  # of `_marks`


@lru_cache(MAX_CACHED_ENDINGS)
def _json_ending(*marks: str) -> str:
    return f",{msgspec.json.encode(_ending(*marks)).decode()[1:]}\n"  # type: ignore[arg-type]  # of `_marks`
