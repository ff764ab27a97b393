"""The format of etcd's gRPC naming packages: what Go programs with `etcd:///my-service` read and write. Pure.

    PREFIX SERVICE/ADDRESS:PORT  →  {"Op": 0, "Addr": "10.0.0.1:8080", "Metadata": null, …}

Their target is what keys begin with: of `etcd:///a` it is `a`, of `etcd:////a` it is `/a`.

The old `clientv3/naming` resolver and the newer `client/v3/naming/endpoints` read this; what they don't know
they ignore, so an instance's other facts stand in a field of ours. `Metadata` stays null: an object there makes
grpc-go's round robin panic (etcd-io/etcd #19700). What others wrote is read leniently: any case, plain `host:port`,
deeper keys, an object in `Metadata`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from adsum.core.errors import Invalid
from adsum.core.identity import holder_digest
from adsum.core.model import MAX_METADATA, Instance, freeze
from adsum.core.validation import MAX_ID_LENGTH, mapping, service_name

ADSUM_FIELD: Final = "Adsum"
"""The field that holds what only we write."""
PUBLISHED_BY_REGISTRY: Final = "registry"
MAX_FOREIGN_METADATA: Final = MAX_METADATA // 2
"""Pairs of an object in `Metadata` that are read; more are as if not said."""
MAX_VALUE_BYTES: Final = 512 * 1024
"""Bytes of a value; a longer one is none of an instance. The largest instance that the model takes has some 300 KiB."""

_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._:@-]+")


def directory(prefix: str, service: str) -> bytes:
    """What the keys of a service begin with: the slash keeps `my-service-admin` out."""
    return f"{prefix}{service}/".encode()


def service(prefix: str, key: bytes) -> str:
    """The service in whose directory a key below the prefix is. Raises `Invalid`.

    A key that is in none, `PREFIX KEY`, belongs to nobody: those who register there are of a service that is called
    like the prefix.
    """
    name, slash, _ = key.removeprefix(prefix.encode()).decode(errors="replace").partition("/")
    if not slash:
        raise Invalid("key", "must be SERVICE/ADDRESS below the prefix")
    service_name("service", name)
    return name


def overlaps(prefix: str, other: str) -> bool:
    """Whether keys of services below a prefix and all sorts of keys below another one could be taken for one another.

    Below no prefix at all that is not so of `/other/`: no service's name begins with a slash.
    """
    return prefix.startswith(other) or (other.startswith(prefix) and not other.removeprefix(prefix).startswith("/"))


def key(prefix: str, instance: Instance) -> bytes:
    """The key of an instance: its address, as Go's packages have it."""
    return directory(prefix, instance.service) + instance.authority.encode()


def encode(instance: Instance, *, published: bool = False, holder: str = "", process: str = "") -> bytes:
    """The value of an instance. `published`: a registry says so, of what it lists; `holder`: who registered it.

    `process` is the digest of a holder that the registry keeps to itself.
    """
    ours: dict[str, Any] = {"id": instance.id, "scheme": instance.scheme, "weight": instance.weight}
    if published:
        ours["by"] = PUBLISHED_BY_REGISTRY
    if holder:
        ours["holder"] = holder
    if process:
        ours["process"] = process
    if instance.zone:
        ours["zone"] = instance.zone
    if instance.tags:
        ours["tags"] = list(instance.tags)
    if instance.metadata:
        ours["metadata"] = dict(instance.metadata)
    said = {"Op": 0, "Addr": instance.authority, "Metadata": None, ADSUM_FIELD: ours}
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()


def is_published(value: bytes) -> bool:
    """Whether a registry wrote it, of what it lists."""
    return _ours(value).get("by") == PUBLISHED_BY_REGISTRY


def holder(value: bytes) -> str:
    """Who registered it; "" of what others wrote."""
    return str(_ours(value).get("holder", ""))


def process(value: bytes) -> str:
    """What tells the process that is listed from the next one with its id; "" of what others wrote."""
    return holder_digest(holder(value)) or str(_ours(value).get("process", ""))


def decode(service: str, value: bytes) -> Instance | None:
    """The instance that a value in the service's directory stands for; None: none that can be called.

    Whom Go would call is one, whatever else is said of it: what can't be used of that is as if not said.
    """
    said = _said(value) if len(value) <= MAX_VALUE_BYTES else None
    place = _PLACE.fullmatch(said["addr"]) if said is not None and isinstance(said.get("addr"), str) else None
    if said is None or place is None:
        return None
    id, host, port = _id(place[0]), place["host"].strip("[]"), int(place["port"])
    ours = said.get(ADSUM_FIELD.lower())
    given = {"id": id, "metadata": _foreign_metadata(said.get("metadata"))}
    if isinstance(ours, Mapping):
        given |= dict(_fields(ours))
    for fields in (given, {**given, "id": id}, {"id": id}):
        with suppress(Invalid):
            return Instance(service, address=host, port=port, **fields)
    return None


def _ours(value: bytes) -> Mapping[str, Any]:
    """What only we write; nothing of what others wrote."""
    said = _said(value) if len(value) <= MAX_VALUE_BYTES else None
    ours = said.get(ADSUM_FIELD.lower()) if said is not None else None
    return ours if isinstance(ours, Mapping) else {}


def _said(value: bytes) -> dict[str, Any] | None:
    """The fields by their names in lower case; of plain `host:port` just that."""
    try:
        text = value.decode()
        said = json.loads(text) if text.lstrip().startswith("{") else {"Addr": text.strip()}
    except (ValueError, RecursionError):
        return None
    return {str(name).lower(): each for name, each in said.items()} if isinstance(said, dict) else None


def _fields(ours: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, kind in (("id", str), ("scheme", str), ("zone", str), ("weight", int)):
        value = ours.get(name)
        if isinstance(value, kind) and not isinstance(value, bool):
            yield name, value
    tags, metadata = ours.get("tags"), ours.get("metadata")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        yield "tags", tuple(tags)
    if isinstance(metadata, dict) and all(isinstance(each, str) for each in metadata.values()):
        yield "metadata", freeze(metadata)


def _foreign_metadata(said: Any) -> Mapping[str, str]:
    """What Go programs put into `Metadata`, if it is an object: numbers and truth values as JSON has them. Anything
    else, and what Adsum could not keep, is left out.
    """
    found: dict[str, str] = {}
    for name, value in said.items() if isinstance(said, Mapping) else ():
        text = json.dumps(value) if isinstance(value, int | float) else value
        if isinstance(text, str) and len(found) < MAX_FOREIGN_METADATA:
            with suppress(Invalid):
                mapping("metadata", {name: text}, MAX_FOREIGN_METADATA)
                found[name] = text
    return freeze(found)


def _id(place: str) -> str:
    """Of an instance that has none: its address."""
    return _NOT_IN_AN_ID.sub("", place).lstrip("._:@-")[:MAX_ID_LENGTH]
