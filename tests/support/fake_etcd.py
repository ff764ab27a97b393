"""A fake etcd in this process, behind a real socket, for tests where none is installed.

It has keys with their histories, transactions, watches, and leases that never end by themselves. As in etcd from
3.4.38, 3.5.22 and 3.6.2 on, a watch that starts at a future revision gets no answer to a progress request.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from random import Random
from typing import Any, Final, NoReturn, Self

import grpc

from adsum.etcd.messages import MESSAGE
from adsum.run.port import claim_free_port

MAX_CONCURRENT_CALLS: Final = 64
"""Concurrent calls, each in a thread. Further calls wait."""
WATCH_POLL_INTERVAL: Final = 0.02
"""Seconds between two polls of a watch."""
_CREATED, _MODIFIED = 1, 2
_DELETED: Final = 1
_FUTURE: Final = "etcdserver: mvcc: required revision is a future revision"
_COMPACTED: Final = "etcdserver: mvcc: required revision has been compacted"


@dataclass(frozen=True)
class KeyVersion:
    """A key as it was written at a revision; `value` is None when it was deleted."""

    revision: int
    value: bytes | None
    created: int = 0
    lease: int = 0


@dataclass
class FakeEtcdState:
    """The data of the fake etcd."""

    revision: int = 1
    compacted: int = 0
    versions: dict[bytes, list[KeyVersion]] = field(default_factory=dict)
    leases: dict[int, int] = field(default_factory=dict)
    """Lease id → ttl in seconds."""

    def at(self, key: bytes, revision: int) -> KeyVersion | None:
        """Returns the key at that revision; None if it did not exist."""
        version = next((v for v in reversed(self.versions.get(key, ())) if v.revision <= revision), None)
        return version if version is not None and version.value is not None else None

    def keys(self, key: bytes, end: bytes) -> list[bytes]:
        """Returns the keys of a range: one key if `end` is empty, all keys from `key` on if it is a zero byte."""
        if not end:
            return [key] if key in self.versions else []
        return sorted(known for known in self.versions if known >= key and (end == b"\0" or known < end))

    def write(self, key: bytes, value: bytes | None, revision: int, lease: int = 0) -> None:
        before = self.at(key, revision)
        if value is None and before is None:
            return
        created = before.created if before is not None else revision
        self.versions.setdefault(key, []).append(KeyVersion(revision, value, created, lease))
        self.revision = revision


class FakeEtcd:
    """Has the interface of `EtcdProcess`, as far as tests need it. Its port stays the same when it is killed."""

    def __init__(self, cluster: int = 0xC1) -> None:
        self._cluster = cluster
        self._claim = claim_free_port(Random())
        self.host_port = f"127.0.0.1:{self._claim.port}"
        self.port = self._claim.port
        self.state = FakeEtcdState()
        self.lag = 0
        """Revisions that watches lag behind, as those of a member that is behind the others."""
        self.delay = 0.0
        """Seconds until it answers a call."""
        self._saved = FakeEtcdState()
        self._lock = threading.RLock()
        self._running = threading.Event()
        self._running.set()
        self._server: grpc.Server | None = None

    @property
    def url(self) -> str:
        return f"etcd://{self.host_port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(MAX_CONCURRENT_CALLS), options=(("grpc.so_reuseport", 0),))
        for method, rpc_handler in self._methods().items():
            service, _, name = method.partition("/")
            handler = grpc.method_handlers_generic_handler(f"etcdserverpb.{service}", {name: rpc_handler})
            self._server.add_generic_rpc_handlers((handler,))
        self._server.add_insecure_port(self.host_port)
        self._server.start()

    def wait(self) -> None:
        """Returns at once: the fake serves as soon as it is started."""

    def kill(self) -> None:
        """Idempotent."""
        self.resume()
        server, self._server = self._server, None
        if server is not None:
            server.stop(None).wait()

    def close(self) -> None:
        self.kill()
        self._claim.release()

    def pause(self) -> None:
        """Answers nothing from now on."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def wipe(self) -> None:
        self.state = FakeEtcdState()

    def save(self) -> None:
        """Makes a backup."""
        self._saved = copy.deepcopy(self.state)

    def restore(self) -> None:
        """Restores the backup."""
        self.state = copy.deepcopy(self._saved)

    def compact(self, revision: int) -> None:
        with self._lock:
            self.state.compacted = revision

    def put(self, key: bytes, value: bytes) -> None:
        """Writes a key as another program would."""
        with self._lock:
            self.state.write(key, value, self.state.revision + 1)

    def _methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        unary: dict[str, tuple[str, Callable[..., Any]]] = {
            "KV/Range": ("RangeRequest", self._range),
            "KV/Txn": ("TxnRequest", self._transact),
            "Lease/LeaseGrant": ("LeaseGrantRequest", self._grant),
            "Lease/LeaseRevoke": ("LeaseRevokeRequest", self._revoke),
            "Maintenance/Status": ("StatusRequest", self._status),
            "Cluster/MemberList": ("MemberListRequest", lambda *_: self._answer("MemberListResponse")),
        }
        streams = {
            "Watch/Watch": ("WatchRequest", self._watch),
            "Lease/LeaseKeepAlive": ("LeaseKeepAliveRequest", self._keep_alive),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._locked(call), MESSAGE[request].FromString, lambda answer: answer.SerializeToString()
            )
            for name, (request, call) in unary.items()
        }
        for name, (request, call) in streams.items():
            handlers[name] = grpc.stream_stream_rpc_method_handler(
                call, MESSAGE[request].FromString, lambda answer: answer.SerializeToString()
            )
        return handlers

    def _locked(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            time.sleep(self.delay)
            self._running.wait()
            with self._lock:
                return call(request, context)

        return answer

    def _answer(self, name: str, **fields: Any) -> Any:
        revision = self.state.revision - (self.lag if name == "WatchResponse" else 0)
        header = {"cluster_id": self._cluster, "member_id": 1, "revision": revision, "raft_term": 1}
        return MESSAGE[name](header=header, **fields)

    def _range(self, request: Any, context: grpc.ServicerContext) -> Any:
        at = request.revision or self.state.revision
        if at > self.state.revision:
            _refuse(context, _FUTURE)
        if at < self.state.compacted:
            _refuse(context, _COMPACTED)
        key_values = [_key_value(key, version) for key, version in self._live(request.key, request.range_end, at)]
        if request.sort_target == 3:  # MOD
            key_values.sort(key=lambda key_value: key_value["mod_revision"])
        if request.sort_order == 2:
            key_values.reverse()
        limited = key_values[: request.limit] if request.limit else key_values
        return self._answer("RangeResponse", kvs=limited, more=len(limited) < len(key_values), count=len(key_values))

    def _live(self, key: bytes, end: bytes, at: int) -> list[tuple[bytes, KeyVersion]]:
        versions = ((known, self.state.at(known, at)) for known in self.state.keys(key, end))
        return [(known, version) for known, version in versions if version is not None]

    def _transact(self, request: Any, context: grpc.ServicerContext) -> Any:
        succeeded = all(map(self._holds, request.compare))
        revision = self.state.revision + 1
        answers: list[dict[str, Any]] = []
        for operation in request.success if succeeded else request.failure:
            if operation.HasField("request_put"):
                put = operation.request_put
                if put.lease and put.lease not in self.state.leases:
                    context.abort(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
                self.state.write(put.key, put.value, revision, put.lease)
                answers.append({"response_put": {}})
            elif operation.HasField("request_delete_range"):
                delete = operation.request_delete_range
                for key in self.state.keys(delete.key, delete.range_end):
                    self.state.write(key, None, revision)
                answers.append({"response_delete_range": {}})
            else:
                answers.append({"response_range": self._range(operation.request_range, context)})
        return self._answer("TxnResponse", succeeded=succeeded, responses=answers)

    def _holds(self, compare: Any) -> bool:
        version = self.state.at(compare.key, self.state.revision)
        if compare.target == _CREATED:
            return bool(compare.create_revision == (version.created if version is not None else 0))
        return bool(compare.mod_revision == (version.revision if version is not None else 0))

    def _grant(self, request: Any, _: grpc.ServicerContext) -> Any:
        lease = Random().randrange(1, 2**62)
        self.state.leases[lease] = request.TTL
        return self._answer("LeaseGrantResponse", ID=lease, TTL=request.TTL)

    def _revoke(self, request: Any, _: grpc.ServicerContext) -> Any:
        self.state.leases.pop(request.ID, None)
        revision = self.state.revision + 1
        for key, version in self._live(b"\0", b"\0", self.state.revision):
            if version.lease == request.ID:
                self.state.write(key, None, revision)
        return self._answer("LeaseRevokeResponse")

    def _status(self, _: Any, __: grpc.ServicerContext) -> Any:
        return self._answer("StatusResponse", version="3.6.0-fake", leader=1)

    def _keep_alive(self, requests: Iterator[Any], _: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            self._running.wait()
            yield self._answer("LeaseKeepAliveResponse", ID=request.ID, TTL=self.state.leases.get(request.ID, 0))

    def _watch(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Serves a stream with one watch."""
        wanted = next(requests).create_request
        progress: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=_read, args=(requests, progress), daemon=True).start()
        self._running.wait()
        yield self._answer("WatchResponse", created=True)
        since = wanted.start_revision or self.state.revision + 1
        if since < self.state.compacted:
            yield self._answer("WatchResponse", canceled=True, compact_revision=self.state.compacted)
            return
        while context.is_active():
            self._running.wait()
            with self._lock:
                at = self.state.revision - self.lag
                events = self._events(wanted.key, wanted.range_end, since, at)
            if events:
                yield self._answer("WatchResponse", events=events)
            since = max(since, at + 1)
            try:
                progress.get(timeout=WATCH_POLL_INTERVAL)
            except Empty:
                continue
            if wanted.start_revision <= self.state.revision:
                yield self._answer("WatchResponse", watch_id=-1)

    def _events(self, key: bytes, end: bytes, since: int, until: int) -> list[dict[str, Any]]:
        events = []
        for known in self.state.keys(key, end):
            for version in self.state.versions[known]:
                if since <= version.revision <= until:
                    is_deleted = version.value is None
                    events.append({"type": _DELETED if is_deleted else 0, "kv": _key_value(known, version)})
        return sorted(events, key=lambda event: event["kv"]["mod_revision"])


def _key_value(key: bytes, version: KeyVersion) -> dict[str, Any]:
    return {
        "key": key,
        "value": version.value or b"",
        "create_revision": version.created,
        "mod_revision": version.revision,
        "lease": version.lease,
    }


def _read(requests: Iterator[Any], into: SimpleQueue[Any]) -> None:
    try:
        for request in requests:
            into.put(request)
    except grpc.RpcError:
        return  # The stream is over.


def _refuse(context: grpc.ServicerContext, details: str) -> NoReturn:
    context.abort(grpc.StatusCode.OUT_OF_RANGE, details)
    raise AssertionError
