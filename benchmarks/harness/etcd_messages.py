"""Encodes the messages of etcd that the benchmarks send, by the field numbers of etcd's rpc.proto."""

from __future__ import annotations

RANGE = "/etcdserverpb.KV/Range"
PUT = "/etcdserverpb.KV/Put"
WATCH = "/etcdserverpb.Watch/Watch"

CREATED = b"\x18\x01"
"""Field 3 of a WatchResponse, `created`, as true."""


def get_prefix(prefix: bytes) -> bytes:
    """Encodes a RangeRequest for every key with that prefix."""
    return _bytes(1, prefix) + _bytes(2, _after(prefix))


def put(key: bytes, value: bytes) -> bytes:
    """Encodes a PutRequest."""
    return _bytes(1, key) + _bytes(2, value)


def watch_prefix(prefix: bytes) -> bytes:
    """Encodes a WatchRequest that creates a watch of every key with that prefix."""
    return _bytes(1, _bytes(1, prefix) + _bytes(2, _after(prefix)))


def _after(prefix: bytes) -> bytes:
    """Returns the first key after all keys with the prefix."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
