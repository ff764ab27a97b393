"""A client of an etcd cluster. It uses one member at a time, and the next one when that member fails.

Each member has a channel, since gRPC's own balancing would not leave a member that hangs or has lost its leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc
import grpc.aio

from adsum.core.errors import Invalid
from adsum.etcd import translation
from adsum.etcd.address import EtcdAddress
from adsum.etcd.errors import EtcdError, EtcdRefused, EtcdUnreachable, LeaseGone, RevisionCompacted
from adsum.etcd.messages import MESSAGE
from adsum.etcd.values import (
    Condition,
    KeyValue,
    Member,
    MemberStatus,
    Operation,
    Put,
    RangeResult,
    TransactionResult,
    prefix_end,
)

CALL_TIMEOUT: Final = 5.0
"""Seconds that a call may take with all its attempts. Then it raises `EtcdUnreachable`."""
MEMBER_TIMEOUT: Final = 2.0
"""Seconds that a member has to answer. Then the next member is used, by this call or the next one."""
FIRST_MEMBER_TIMEOUT: Final = 0.7
"""Seconds that a member has to answer the first attempt if there are several members. So a hanging one costs little.

The time doubles with each attempt, up to `MEMBER_TIMEOUT`, since all members may be slow."""
WRITE_MEMBER_TIMEOUT: Final = 1.0
"""Seconds that a member has to answer a call that is not repeated, if there are several members."""
ALL_KEYS_START: Final = b"\0"
"""The start of the range of all keys."""
PAGE_SIZE: Final = 1_000
"""Keys of a large range that are read at a time."""
END_OF_STREAM: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it
"""The value that reading a stream returns at its end."""
REQUIRE_LEADER: Final = {"hasleader": "true"}
"""Metadata for streams: a member that loses its leader ends the stream instead of staying silent."""

_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 6_000),  # etcd closes connections that ping more often than every 5 s.
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # etcd is in the same network.
)
_Metadata = tuple[tuple[str, str], ...]


class EtcdClient:
    """A client of one cluster, for use in one event loop. It connects when first used.

    Every call takes at most `CALL_TIMEOUT` seconds and raises `EtcdError`: `EtcdUnreachable` if it may be tried again,
    `EtcdRefused` if an operator must act first.
    """

    def __init__(self, address: EtcdAddress, rng: Random) -> None:
        self.address = address
        self._hosts = rng.sample(address.hosts, len(address.hosts))
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._token = ""
        self._authentication_lock: asyncio.Lock = asyncio.Lock()

    @property
    def host(self) -> str:
        """The member that is used now."""
        return self._hosts[0]

    @property
    def has_one_member(self) -> bool:
        """True if the cluster has no other member to use."""
        return len(self._hosts) == 1

    async def range(
        self,
        key: bytes,
        end: bytes | None = None,
        *,
        revision: int = 0,
        limit: int = 0,
        keys_only: bool = False,
        descending: bool = False,
    ) -> RangeResult:
        """Reads the keys from `key` up to but without `end`, or `key` alone, in ascending or descending order."""
        fields = {
            "key": key,
            "range_end": end or b"",
            "revision": revision,
            "limit": limit,
            "keys_only": keys_only,
            "sort_order": 2 if descending else 0,
        }
        answer = await self._call("KV/Range", fields)
        return RangeResult(
            translation.header(answer.header), tuple(map(translation.key_value, answer.kvs)), answer.more, answer.count
        )

    async def pages(self, prefix: bytes, *, keys_only: bool = False) -> AsyncGenerator[RangeResult, None]:
        """Yields all keys that begin with `prefix`, in pages of one common revision."""
        page = await self.range(prefix or ALL_KEYS_START, prefix_end(prefix), limit=PAGE_SIZE, keys_only=keys_only)
        revision = page.header.revision
        yield page
        while page.more:
            # The key that sorts next after a key is that key with a zero byte appended.
            start = page.key_values[-1].key + b"\0"
            page = await self.range(start, prefix_end(prefix), revision=revision, limit=PAGE_SIZE, keys_only=keys_only)
            yield page

    async def read_all(self, prefix: bytes) -> RangeResult:
        """Reads all keys that begin with `prefix`."""
        key_values: list[KeyValue] = []
        header = None
        async for page in self.pages(prefix):
            header = header or page.header
            key_values += page.key_values
        assert header is not None  # noqa: S101 - there is always a page
        return RangeResult(header, tuple(key_values), more=False, count=len(key_values))

    async def get(self, key: bytes) -> KeyValue | None:
        """Reads one key; None if it does not exist."""
        key_values = (await self.range(key)).key_values
        return key_values[0] if key_values else None

    async def commit(
        self, when: Sequence[Condition], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TransactionResult:
        """Runs one transaction: `then` if all conditions hold, else `otherwise`.

        It is not repeated. After `EtcdUnreachable` it may have been applied or not.
        """
        fields = {
            "compare": list(map(translation.condition, when)),
            "success": list(map(translation.operation, then)),
            "failure": list(map(translation.operation, otherwise)),
        }
        return translation.transaction_result(await self._call("KV/Txn", fields, repeat=False))

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> int:
        """Sets a key, optionally under a lease. Returns the revision."""
        return (await self.commit((), [Put(key, value, lease)])).header.revision

    async def grant(self, ttl: int) -> int:
        """Creates a lease of `ttl` seconds. Returns its id."""
        answer = await self._call("Lease/LeaseGrant", {"TTL": ttl})
        return int(answer.ID)

    async def keep_alive(self, lease: int) -> None:
        """Renews a lease for its ttl from now. Raises `LeaseGone`."""
        host, call = await self.stream("Lease/LeaseKeepAlive", "LeaseKeepAliveResponse")
        try:
            async with asyncio.timeout(MEMBER_TIMEOUT if self.has_one_member else WRITE_MEMBER_TIMEOUT):
                await call.write(MESSAGE["LeaseKeepAliveRequest"](ID=lease))
                answer = await call.read()
        except (TimeoutError, asyncio.InvalidStateError) as error:
            self.demote(host)
            raise EtcdUnreachable(str(error) or "etcd does not answer in time") from None
        except grpc.RpcError as error:
            self.demote(host)
            if is_token_error(error.code(), error.details()):
                self.forget_token()
            raise translate_error(error) from None
        finally:
            call.cancel()
        if answer is END_OF_STREAM:
            self.demote(host)
            raise EtcdUnreachable("the stream ended")
        if answer.TTL <= 0:
            raise LeaseGone(f"lease {lease:x} is gone")  # etcd reports this by the TTL alone.

    async def revoke(self, lease: int) -> None:
        """Ends a lease and deletes its keys. A lease that is gone already is no error."""
        try:
            await self._call("Lease/LeaseRevoke", {"ID": lease})
        except LeaseGone:
            return

    async def status(self) -> MemberStatus:
        """Returns the status of the member that is used now."""
        answer = await self._call("Maintenance/Status", {})
        return MemberStatus(translation.header(answer.header), answer.version, answer.leader, answer.dbSize)

    async def members(self) -> tuple[Member, ...]:
        answer = await self._call("Cluster/MemberList", {})
        return tuple(
            Member(member.ID, member.name, tuple(member.clientURLs), tuple(member.peerURLs))
            for member in answer.members
        )

    async def stream(self, method: str, response: str) -> tuple[str, Any]:
        """Opens a stream to the member that is used now. Returns the member and the call.

        Raises what authentication raises.
        """
        host = self.host
        metadata = (*REQUIRE_LEADER.items(), *await self._credentials())
        call = self._channel(host).stream_stream(
            f"/etcdserverpb.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGE[response].FromString,
        )
        return host, call(None, metadata=grpc.aio.Metadata(*metadata))

    def demote(self, host: str) -> None:
        """Makes a member that failed the last one to be used."""
        if host == self.host:
            self._hosts.append(self._hosts.pop(0))

    def forget_token(self) -> None:
        """Makes the next call authenticate anew."""
        self._token = ""

    async def close(self) -> None:
        """Idempotent."""
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close(None)

    async def _call(self, method: str, fields: dict[str, Any], *, repeat: bool = True) -> Any:
        """Returns the answer of a member. With `repeat` other members are tried after one that fails."""
        request = MESSAGE[_REQUESTS[method]](**fields)
        deadline = asyncio.get_running_loop().time() + CALL_TIMEOUT
        authenticated = False
        timeout = MEMBER_TIMEOUT if self.has_one_member else FIRST_MEMBER_TIMEOUT if repeat else WRITE_MEMBER_TIMEOUT
        while True:
            host = self.host
            left = deadline - asyncio.get_running_loop().time()
            try:
                return await self._call_member(host, method, request, min(timeout, left))
            except grpc.RpcError as error:
                translated = translate_error(error)
                if isinstance(translated, EtcdUnreachable):
                    self.demote(host)
                    timeout = min(MEMBER_TIMEOUT, 2 * timeout)
                    if repeat and deadline - asyncio.get_running_loop().time() > MEMBER_TIMEOUT / 2:
                        await asyncio.sleep(0.05)
                        continue
                if is_token_error(error.code(), error.details()) and self.address.user and not authenticated:
                    # A token ends with the member that issued it, after a while, and when users or roles change.
                    authenticated = True
                    self.forget_token()
                    continue
                raise translated from None

    async def _call_member(self, host: str, method: str, request: Any, timeout: float) -> Any:
        call = self._channel(host).unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGE[_ANSWERS[method]].FromString,
        )
        metadata = grpc.aio.Metadata(*(await self._credentials() if method != _AUTHENTICATE else ()))
        return await call(request, timeout=max(0.01, timeout), metadata=metadata)

    async def _credentials(self) -> _Metadata:
        if not self.address.user:
            return ()
        async with self._authentication_lock:
            if not self._token:
                fields = {"name": self.address.user, "password": self._password()}
                self._token = (await self._call(_AUTHENTICATE, fields)).token
        return (("token", self._token),)

    def _password(self) -> str:
        """Reads the password. Its file is read each time, since the password may have changed."""
        try:
            return self.address.read_password()
        except Invalid as error:
            raise EtcdRefused(str(error)) from None

    def _channel(self, host: str) -> grpc.aio.Channel:
        channel = self._channels.get(host)
        if channel is None:
            if self.address.tls:
                channel = grpc.aio.secure_channel(host, _channel_credentials(self.address), options=_OPTIONS)
            else:
                channel = grpc.aio.insecure_channel(host, options=_OPTIONS)
            self._channels[host] = channel
        return channel


_AUTHENTICATE: Final = "Auth/Authenticate"
_REQUESTS: Final = {
    "KV/Range": "RangeRequest",
    "KV/Txn": "TxnRequest",
    "Lease/LeaseGrant": "LeaseGrantRequest",
    "Lease/LeaseRevoke": "LeaseRevokeRequest",
    "Maintenance/Status": "StatusRequest",
    "Cluster/MemberList": "MemberListRequest",
    _AUTHENTICATE: "AuthenticateRequest",
}
_ANSWERS: Final = {method: name.replace("Request", "Response") for method, name in _REQUESTS.items()}
_UNREACHABLE: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
_TOKEN_ERRORS: Final = ("invalid auth token", "revision of auth store is old")


def translate_error(error: grpc.RpcError) -> EtcdError:
    """Returns the `EtcdError` for an error of gRPC."""
    code, details = error.code(), error.details() or ""
    text = details.removeprefix("etcdserver: ").removeprefix("mvcc: ")
    if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in details:
        return RevisionCompacted(text)
    if code is grpc.StatusCode.NOT_FOUND and "lease" in details:
        return LeaseGone(text)
    if code in _UNREACHABLE or "too many requests" in details:
        return EtcdUnreachable("etcd does not answer in time" if code is grpc.StatusCode.DEADLINE_EXCEEDED else text)
    return EtcdRefused(f"etcd refuses: {text}")


def is_token_error(code: grpc.StatusCode | None, details: str | None) -> bool:
    """Returns whether a call that etcd refused may succeed with a new token.

    etcd refuses an outdated JWT as an old revision of the auth store.
    """
    return code is grpc.StatusCode.UNAUTHENTICATED or any(text in (details or "") for text in _TOKEN_ERRORS)


def _channel_credentials(address: EtcdAddress) -> grpc.ChannelCredentials:
    try:
        files = (address.ca, address.key, address.cert)
        roots, key, chain = (Path(file).read_bytes() if file else None for file in files)
    except OSError as error:
        raise EtcdRefused(f"{error.filename} can't be read: {error.strerror}") from None
    return grpc.ssl_channel_credentials(roots, key, chain)
