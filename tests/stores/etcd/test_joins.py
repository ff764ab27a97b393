"""Hosts that join at several nodes at the same time, over etcd."""

from __future__ import annotations

import asyncio
import secrets

from msgspec.structs import replace

from adsum import stores
from adsum.access.token_declarations import invite_key, join
from adsum.clock import SystemClock
from adsum.core.access.invites import Invite
from adsum.core.access.scopes import parse_scopes
from adsum.core.access.tokens import TokenRole, TokenSecret, hash_secret
from adsum.core.catalog import declarations
from adsum.core.catalog.decisions import Caller
from adsum.core.catalog.documents import DocumentKind
from adsum.core.errors import Unauthenticated
from adsum.registry import Registry
from adsum.wire.tokens import encode_invite
from tests.support.etcd_process import EtcdProcess
from tests.support.observers import RecordingObserver
from tests.support.tokens import make_token

CALLER = Caller("ann", 100.0)
SECRET = "s" * 43
INVITE = Invite(
    "0" * 16, TokenRole.NODE, parse_scopes("scopes", ["node"]), (TokenSecret(hash_secret(SECRET)),), 200.0, uses_left=2
)


async def test_an_invite_joins_no_more_hosts_than_it_has_uses_though_they_join_at_different_nodes(
    etcd: EtcdProcess,
) -> None:
    url = f"{etcd.url}?prefix=/{secrets.token_hex(4)}"
    nodes = [Registry(stores.store(url), SystemClock(), RecordingObserver()) for _ in range(2)]
    try:
        for node in nodes:
            await node.start()
        revision = await nodes[0].write(declarations.declare(invite_key(INVITE.id), encode_invite(INVITE), CALLER))
        assert await nodes[1].wait_for_revision(revision, timeout=10.0)
        joins = [
            nodes[n % 2].write(join(INVITE.id, SECRET, make_token(f"host-{n}")[0], replace(CALLER, actor=f"host-{n}")))
            for n in range(6)
        ]
        outcomes = await asyncio.gather(*joins, return_exceptions=True)
        joined = {f"host-{n}" for n, outcome in enumerate(outcomes) if isinstance(outcome, int)}
        assert len(joined) == 2
        assert [type(outcome) for outcome in outcomes if not isinstance(outcome, int)] == [Unauthenticated] * 4
        for node in nodes:
            assert await node.wait_for_revision(max(o for o in outcomes if isinstance(o, int)), timeout=10.0)
            tables = node.snapshot.documents.by_kind
            assert tables[DocumentKind.TOKEN].keys() == joined
            assert not tables[DocumentKind.INVITE]
    finally:
        for node in nodes:
            await node.stop()
