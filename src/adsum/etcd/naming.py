"""The format of etcd's gRPC naming packages, which Go programs with the target `etcd:///my-service` use. Pure.

    PREFIX SERVICE/ADDRESS:PORT  →  {"Op": 0, "Addr": "10.0.0.1:8080", "Metadata": null, …}

Keys begin with the path of the target: `a` for `etcd:///a`, `/a` for `etcd:////a`.

The resolvers of `clientv3/naming` and of `client/v3/naming/endpoints` read this format and ignore unknown fields. So
the other facts about an instance are in a field of Adsum's own. `Metadata` stays null: an object there makes grpc-go's
round robin panic (etcd-io/etcd #19700). Values of other programs are read leniently: field names in any case, plain
`host:port`, deeper keys, an object in `Metadata`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from adsum.core.errors import Invalid
from adsum.core.identity import holder_digest
from adsum.core.instance_texts import MAX_METADATA
from adsum.core.model import Instance, freeze
from adsum.core.validation import MAX_ID_LENGTH, mapping, service_name

ADSUM_FIELD: Final = "Adsum"
"""The field with the facts that only Adsum writes."""
PUBLISHED_BY_REGISTRY: Final = "registry"
MAX_FOREIGN_METADATA: Final = MAX_METADATA // 2
"""Pairs of an object in `Metadata` that are read. Further pairs are ignored."""
MAX_VALUE_BYTES: Final = 512 * 1024
"""Bytes of a value. A longer value is ignored. The largest valid instance takes some 300 KiB."""

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9._:@-]+")


def directory(prefix: str, service: str) -> bytes:
    """Returns the prefix of a service's keys. It ends with a slash, which excludes `my-service-admin`."""
    return f"{prefix}{service}/".encode()


def service(prefix: str, key: bytes) -> str:
    """Returns the service in whose directory a key below the prefix is. Raises `Invalid`.

    A key directly below the prefix is in no directory: to the program that wrote it, the prefix is the service's name.
    """
    name, slash, _ = key.removeprefix(prefix.encode()).decode(errors="replace").partition("/")
    if not slash:
        raise Invalid("key", "must be SERVICE/ADDRESS below the prefix")
    service_name("service", name)
    return name


def overlaps(prefix: str, other: str) -> bool:
    """Returns whether keys of services below `prefix` and any keys below `other` could be confused.

    With an empty prefix `/other/` does not overlap: no service's name begins with a slash.
    """
    return prefix.startswith(other) or (other.startswith(prefix) and not other.removeprefix(prefix).startswith("/"))


def key(prefix: str, instance: Instance) -> bytes:
    """Returns the key of an instance. It ends with the address, as Go's packages write it."""
    return directory(prefix, instance.service) + instance.authority.encode()


def encode(instance: Instance, *, published: bool = False, holder: str = "", process: str = "") -> bytes:
    """Returns the value of an instance.

    `published`: a registry writes it for an instance that it lists. `holder`: the process that registered the instance.
    `process`: the digest of a holder that the registry does not publish.
    """
    adsum_fields: dict[str, Any] = {"id": instance.id, "scheme": instance.scheme, "weight": instance.weight}
    if published:
        adsum_fields["by"] = PUBLISHED_BY_REGISTRY
    if holder:
        adsum_fields["holder"] = holder
    if process:
        adsum_fields["process"] = process
    if instance.zone:
        adsum_fields["zone"] = instance.zone
    if instance.tags:
        adsum_fields["tags"] = list(instance.tags)
    if instance.metadata:
        adsum_fields["metadata"] = dict(instance.metadata)
    value = {"Op": 0, "Addr": instance.authority, "Metadata": None, ADSUM_FIELD: adsum_fields}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def is_published(value: bytes) -> bool:
    """Returns whether a registry wrote the value for an instance that it lists."""
    return _own_fields(value).get("by") == PUBLISHED_BY_REGISTRY


def holder(value: bytes) -> str:
    """Returns the holder that registered the instance; "" for a value of another program."""
    return str(_own_fields(value).get("holder", ""))


def process(value: bytes) -> str:
    """Returns the digest of the instance's process; "" for a value of another program."""
    return holder_digest(holder(value)) or str(_own_fields(value).get("process", ""))


def decode(service: str, value: bytes) -> Instance | None:
    """Returns the instance of a value in the service's directory; None if it can't be called.

    Accepts every value that grpc-go accepts. Facts that break a rule of the model are ignored.
    """
    fields = _decode(value)
    address = _ADDRESS.fullmatch(fields["addr"]) if fields is not None and isinstance(fields.get("addr"), str) else None
    if fields is None or address is None:
        return None
    id, host, port = _id(address[0]), address["host"].strip("[]"), int(address["port"])
    adsum_fields = fields.get(ADSUM_FIELD.lower())
    given = {"id": id, "metadata": _foreign_metadata(fields.get("metadata"))}
    if isinstance(adsum_fields, Mapping):
        given |= dict(_typed_fields(adsum_fields))
    for facts in (given, {**given, "id": id}, {"id": id}):
        with suppress(Invalid):
            return Instance(service, address=host, port=port, **facts)
    return None


def _own_fields(value: bytes) -> Mapping[str, Any]:
    """Returns the facts that only Adsum writes; none for a value of another program."""
    fields = _decode(value)
    adsum_fields = fields.get(ADSUM_FIELD.lower()) if fields is not None else None
    return adsum_fields if isinstance(adsum_fields, Mapping) else {}


def _decode(value: bytes) -> dict[str, Any] | None:
    """Returns the fields by their names in lower case; `addr` alone for plain `host:port`; None for any other value."""
    if len(value) > MAX_VALUE_BYTES:
        return None
    try:
        text = value.decode()
        fields = json.loads(text) if text.lstrip().startswith("{") else {"Addr": text.strip()}
    except (ValueError, RecursionError):
        return None
    return {str(name).lower(): field for name, field in fields.items()} if isinstance(fields, dict) else None


def _typed_fields(adsum_fields: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yields the facts about an instance that have the right type."""
    for name, kind in (("id", str), ("scheme", str), ("zone", str), ("weight", int)):
        value = adsum_fields.get(name)
        if isinstance(value, kind) and not isinstance(value, bool):
            yield name, value
    tags, metadata = adsum_fields.get("tags"), adsum_fields.get("metadata")
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        yield "tags", tuple(tags)
    if isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values()):
        yield "metadata", freeze(metadata)


def _foreign_metadata(metadata: Any) -> Mapping[str, str]:
    """Returns the pairs of an object that a Go program put into `Metadata`; numbers and booleans as JSON writes them.

    Other values, and pairs that break a rule of the model, are left out.
    """
    pairs: dict[str, str] = {}
    for name, value in metadata.items() if isinstance(metadata, Mapping) else ():
        text = json.dumps(value) if isinstance(value, int | float) else value
        if isinstance(text, str) and len(pairs) < MAX_FOREIGN_METADATA:
            with suppress(Invalid):
                mapping("metadata", {name: text}, MAX_FOREIGN_METADATA)
                pairs[name] = text
    return freeze(pairs)


def _id(address: str) -> str:
    """Returns the id of an instance without one, made of its `host:port`."""
    return _NOT_IN_AN_ID.sub("", address).lstrip("._:@-")[:MAX_ID_LENGTH]
