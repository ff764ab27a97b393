"""Translates values to etcd's messages and its messages to values."""

from __future__ import annotations

from typing import Any, Final

from adsum.etcd.messages import MESSAGE
from adsum.etcd.values import Condition, Delete, Header, KeyValue, Operation, Put, TransactionResult, Unchanged

_CREATE, _MOD = 1, 2
"""`Compare.CompareTarget`; the comparison itself is EQUAL, 0."""
_Compare: Final = MESSAGE["Compare"]
_RequestOp: Final = MESSAGE["RequestOp"]


def header(message: Any) -> Header:
    return Header(message.cluster_id, message.member_id, message.revision, message.raft_term)


def key_value(message: Any) -> KeyValue:
    return KeyValue(message.key, message.value, message.mod_revision, message.create_revision, message.lease)


def condition(wanted: Condition) -> Any:
    if isinstance(wanted, Unchanged):
        return _Compare(target=_MOD, key=wanted.key, mod_revision=wanted.revision)
    return _Compare(target=_CREATE, key=wanted.key, create_revision=wanted.revision)


def operation(wanted: Operation) -> Any:
    if isinstance(wanted, Put):
        return _RequestOp(request_put={"key": wanted.key, "value": wanted.value, "lease": wanted.lease})
    kind = "request_delete_range" if isinstance(wanted, Delete) else "request_range"
    return _RequestOp(**{kind: {"key": wanted.key, "range_end": wanted.end or b""}})


def transaction_result(message: Any) -> TransactionResult:
    reads = [
        tuple(map(key_value, answer.response_range.kvs))
        for answer in message.responses
        if answer.WhichOneof("one") == "response_range"
    ]
    return TransactionResult(header(message.header), message.succeeded, reads)
