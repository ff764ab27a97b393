"""The etcd-naming dialect of a node. It mounts nothing, since its clients read and write etcd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adsum.dialects.dialect import Dialect, DialectContext
from adsum.dialects.etcd_naming.settings import EtcdNamingSettings

if TYPE_CHECKING:
    from adsum.dialects.etcd_naming.etcd_naming import EtcdNaming


def create(context: DialectContext) -> EtcdNamingDialect | None:
    """Makes the dialect; None if `--etcd-naming` is not set."""
    address = context.settings_of(EtcdNamingSettings).etcd_naming_address(context.store)
    if address is None:
        return None
    # Imported only if needed: they load grpc.
    from adsum.dialects.etcd_naming.etcd_naming import EtcdNaming
    from adsum.dialects.etcd_naming.naming_access import NamingAccess
    from adsum.etcd.client import EtcdClient

    return EtcdNamingDialect(
        EtcdNaming(
            EtcdClient(address, context.rng),
            address.prefix,
            context.registry,
            context.sharding,
            context.check_address,
            NamingAccess(context.access, context.clock),
            context.clock,
            context.rng,
        )
    )


class EtcdNamingDialect(Dialect):
    """Keeps etcd's naming keys and the catalog in step, from the time that the catalog is loaded."""

    def __init__(self, naming: EtcdNaming) -> None:
        self._naming = naming

    async def catalog_loaded(self) -> None:
        self._naming.start()

    async def stop(self) -> None:
        await self._naming.close()
