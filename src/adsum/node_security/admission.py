"""The admission of a node that starts to the other nodes of its registry: they must be protected in the same way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from adsum.access.registry_authority import (
    AnotherAuthority,
    claim_authority,
    find_authority,
    require_no_authority,
    require_same_scheme,
)
from adsum.core.access.principal import REGISTRY_ACTOR
from adsum.core.catalog.decisions import Caller
from adsum.core.errors import Invalid
from adsum.ports import Clock, Sharding
from adsum.registry import Registry

if TYPE_CHECKING:
    from adsum.node_security.node_security import NodeSecurity

OPEN_AGAIN: Final = (
    "this registry was secure before: its tokens protect nothing now, since this node was started without --secure"
)

_log = logging.getLogger("adsum.security")


def check_open_node(registry: Registry, *, is_shared: bool) -> None:
    """Checks a node without TLS, whose catalog is loaded. `is_shared`: other nodes may use the same store.

    Raises `Invalid` if secure nodes share the store.
    """
    if is_shared:
        require_no_authority(registry.snapshot.documents)
    elif find_authority(registry.snapshot.documents) is not None:
        _log.warning(OPEN_AGAIN)


async def admit_node(
    registry: Registry, sharding: Sharding, security: NodeSecurity | None, clock: Clock, *, is_shared: bool
) -> None:
    """Checks a node that knows the other ones, and records the authority of the first secure node.

    `security` is None for a node without TLS. Raises `Invalid` if other nodes are protected in another way or have
    another authority, and `AdsumError` if the store can't be written.
    """
    peers = [peer for peer, _ in sharding.peers()]
    require_same_scheme(peers, serves_tls=security is not None)
    if security is None:
        return
    replaces = security.replaces_authority
    if replaces and peers:
        raise Invalid(
            "data",
            f"{security.folder.path} has a new authority, which replaces that of the registry only while no other node "
            f"runs: stop {', '.join(peer.name for peer in peers)} first, and join them again afterwards",
        )
    caller, record = Caller(REGISTRY_ACTOR, clock.wall()), security.authority_record()
    before = find_authority(registry.snapshot.documents)
    try:
        await registry.write(claim_authority(record, caller, replaces=replaces or not is_shared))
        if replaces:
            security.authority_recorded()
        if before not in (None, record):
            _log.warning("the registry has a new authority: every host must join again")
    except AnotherAuthority as error:
        security.discard_new_authority()
        data = security.folder.path.parent
        raise Invalid(
            "data",
            f"{security.folder.path} does not belong to this registry: {error}. Run `adsum token invite --for node` "
            f"where a node of the registry runs, and `adsum join --data {data}` here with the line that it prints",
        ) from None
