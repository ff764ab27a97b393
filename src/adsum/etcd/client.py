"""A connection to an etcd cluster: one member at a time, the next one when that fails.

One channel a member, chosen by ourselves: a member that hangs or has lost its leader is left at once, which gRPC's own
balancing would not notice.
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
"""Seconds that a call may take with all that is tried; then it is `Unreachable`."""
MEMBER_TIMEOUT: Final = 2.0
"""Seconds that one member has to answer; then the next one is asked, now or at the next call."""
FIRST_MEMBER_TIMEOUT: Final = 0.7
"""The same where there is another member to ask: one that hangs costs no more. It doubles, up to `MEMBER_TIMEOUT`, with each
member that a call asks in vain: all may be slow."""
WRITE_MEMBER_TIMEOUT: Final = 1.0
"""Seconds that one member of several has to answer what is not asked again by itself."""
ALL_KEYS_START: Final = b"\0"
"""Where the range of all keys begins."""
PAGE_SIZE: Final = 1_000
"""Keys that are read at a time of a large range."""
END_OF_STREAM: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]  # it is there; the stubs lack it
"""What reading a stream says when it has ended."""
REQUIRE_LEADER: Final = {"hasleader": "true"}
"""Metadata by which a member ends a stream when it has lost its leader, instead of going on in silence."""

_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 6_000),  # etcd takes pings more often than every 5 s for an attack.
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # etcd is near, as registries are.
)
_Metadata = tuple[tuple[str, str], ...]


class EtcdClient:
    """Made anywhere, used in one running loop; connects when first used. Every call is bounded by `CALL_TIMEOUT` seconds and
    raises `EtcdError`s: `Unreachable` if it may be tried again, `Refused` if somebody must do something.
    """

    def __init__(self, address: EtcdAddress, rng: Random) -> None:
        self.address = address
        self._hosts = rng.sample(address.hosts, len(address.hosts))
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._token = ""
        self._asking: asyncio.Lock = asyncio.Lock()

    @property
    def host(self) -> str:
        """The member that is asked now."""
        return self._hosts[0]

    @property
    def has_one_member(self) -> bool:
        """Whether there is no other member to ask."""
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
        """The keys from `key` up to but without `end` (None: that key), in order, or the last ones first."""
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
        """Every key that begins so, some at a time, all of one revision."""
        page = await self.range(prefix or ALL_KEYS_START, prefix_end(prefix), limit=PAGE_SIZE, keys_only=keys_only)
        revision = page.header.revision
        yield page
        while page.more:
            # The next key after one is that key and a zero.
            start = page.key_values[-1].key + b"\0"
            page = await self.range(start, prefix_end(prefix), revision=revision, limit=PAGE_SIZE, keys_only=keys_only)
            yield page

    async def read_all(self, prefix: bytes) -> RangeResult:
        """The same at once."""
        found: list[KeyValue] = []
        header = None
        async for page in self.pages(prefix):
            header = header or page.header
            found += page.key_values
        assert header is not None  # noqa: S101 - there is a page at least
        return RangeResult(header, tuple(found), more=False, count=len(found))

    async def get(self, key: bytes) -> KeyValue | None:
        """One key."""
        found = (await self.range(key)).key_values
        return found[0] if found else None

    async def commit(
        self, when: Sequence[Condition], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TransactionResult:
        """A transaction. After `Unreachable` it may have been done or not."""
        fields = {
            "compare": list(map(translation.condition, when)),
            "success": list(map(translation.operation, then)),
            "failure": list(map(translation.operation, otherwise)),
        }
        return translation.transaction_result(await self._call("KV/Txn", fields, again=False))

    async def put(self, key: bytes, value: bytes, lease: int = 0) -> int:
        """Set a key; the revision."""
        return (await self.commit((), [Put(key, value, lease)])).header.revision

    async def grant(self, ttl: int) -> int:
        """A new lease of `ttl` seconds; its id."""
        answer = await self._call("Lease/LeaseGrant", {"TTL": ttl})
        return int(answer.ID)

    async def keep_alive(self, lease: int) -> None:
        """Have a lease live for another ttl from now. Raises `LeaseGone`."""
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
            raise LeaseGone(f"lease {lease:x} is gone")  # No error status says so.

    async def revoke(self, lease: int) -> None:
        """End a lease with all its keys; one that is gone is fine."""
        try:
            await self._call("Lease/LeaseRevoke", {"ID": lease})
        except LeaseGone:
            return

    async def status(self) -> MemberStatus:
        """What the member that is asked now says of itself."""
        answer = await self._call("Maintenance/Status", {})
        return MemberStatus(translation.header(answer.header), answer.version, answer.leader, answer.dbSize)

    async def members(self) -> tuple[Member, ...]:
        answer = await self._call("Cluster/MemberList", {})
        return tuple(
            Member(each.ID, each.name, tuple(each.clientURLs), tuple(each.peerURLs)) for each in answer.members
        )

    async def stream(self, method: str, response: str) -> tuple[str, Any]:
        """The member that is asked now, and an open call on it, for streams; raises what authenticating raises."""
        host = self.host
        metadata = (*REQUIRE_LEADER.items(), *await self._credentials())
        call = self._channel(host).stream_stream(
            f"/etcdserverpb.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGE[response].FromString,
        )
        return host, call(None, metadata=grpc.aio.Metadata(*metadata))

    def demote(self, host: str) -> None:
        """That member did not do its work: it is asked last from now on."""
        if host == self.host:
            self._hosts.append(self._hosts.pop(0))

    def forget_token(self) -> None:
        """Authenticate anew at the next call."""
        self._token = ""

    async def close(self) -> None:
        """Idempotent."""
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close(None)

    async def _call(self, method: str, fields: dict[str, Any], *, again: bool = True) -> Any:
        """The answer, of any member if the call may be made `again`."""
        request = MESSAGE[_REQUESTS[method]](**fields)
        deadline = asyncio.get_running_loop().time() + CALL_TIMEOUT
        authenticated = False
        patience = MEMBER_TIMEOUT if self.has_one_member else FIRST_MEMBER_TIMEOUT if again else WRITE_MEMBER_TIMEOUT
        while True:
            host = self.host
            left = deadline - asyncio.get_running_loop().time()
            try:
                return await self._once(host, method, request, min(patience, left))
            except grpc.RpcError as error:
                trouble = translate_error(error)
                if isinstance(trouble, EtcdUnreachable):
                    self.demote(host)
                    patience = min(MEMBER_TIMEOUT, 2 * patience)
                    if again and deadline - asyncio.get_running_loop().time() > MEMBER_TIMEOUT / 2:
                        await asyncio.sleep(0.05)
                        continue
                if is_token_error(error.code(), error.details()) and self.address.user and not authenticated:
                    # Tokens end with the member that gave them, by themselves, and when users or roles change.
                    authenticated = True
                    self.forget_token()
                    continue
                raise trouble from None

    async def _once(self, host: str, method: str, request: Any, timeout: float) -> Any:
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
        async with self._asking:
            if not self._token:
                fields = {"name": self.address.user, "password": self._password()}
                self._token = (await self._call(_AUTHENTICATE, fields)).token
        return (("token", self._token),)

    def _password(self) -> str:
        """As it is now: the file of one that was changed is read again."""
        try:
            return self.address.read_password()
        except Invalid as error:
            raise EtcdRefused(str(error)) from None

    def _channel(self, host: str) -> grpc.aio.Channel:
        channel = self._channels.get(host)
        if channel is None:
            if self.address.tls:
                channel = grpc.aio.secure_channel(host, _encryption(self.address), options=_OPTIONS)
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
_OF_THE_TOKEN: Final = ("invalid auth token", "revision of auth store is old")


def translate_error(error: grpc.RpcError) -> EtcdError:
    """What gRPC's error means."""
    code, said = error.code(), error.details() or ""
    words = said.removeprefix("etcdserver: ").removeprefix("mvcc: ")
    if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in said:
        return RevisionCompacted(words)
    if code is grpc.StatusCode.NOT_FOUND and "lease" in said:
        return LeaseGone(words)
    if code in _UNREACHABLE or "too many requests" in said:
        return EtcdUnreachable("etcd does not answer in time" if code is grpc.StatusCode.DEADLINE_EXCEEDED else words)
    return EtcdRefused(f"etcd refuses: {words}")


def is_token_error(code: grpc.StatusCode | None, details: str | None) -> bool:
    """Whether what etcd refused may be granted to a new token. A stale one of JWT is refused as an old revision."""
    return code is grpc.StatusCode.UNAUTHENTICATED or any(words in (details or "") for words in _OF_THE_TOKEN)


def _encryption(place: EtcdAddress) -> grpc.ChannelCredentials:
    try:
        roots, key, chain = (Path(file).read_bytes() if file else None for file in (place.ca, place.key, place.cert))
    except OSError as error:
        raise EtcdRefused(f"{error.filename} can't be read: {error.strerror}") from None
    return grpc.ssl_channel_credentials(roots, key, chain)
