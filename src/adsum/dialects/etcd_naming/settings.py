"""The settings of the etcd-naming dialect."""

from __future__ import annotations

from dataclasses import dataclass, replace

from adsum.core.errors import Invalid
from adsum.etcd import naming
from adsum.etcd.address import DEFAULT_STORE_PREFIX, SCHEME, EtcdAddress
from adsum.settings import setting


@dataclass(frozen=True)
class EtcdNamingSettings:
    """Settings of `adsum serve` for etcd naming."""

    etcd_naming: str = setting(
        "Publish usable instances as keys below this prefix in etcd, in the format that Go's gRPC resolvers read, and "
        "list the instances that other programs register there. Either a prefix in the store's etcd, such as "
        "`services/`, or an address, etcd://HOST[?prefix=…]. With services/ clients dial etcd:///services/SERVICE, "
        "without a prefix etcd:///SERVICE",
        metavar="PREFIX",
        default="",
    )

    def check_settings(self, store: str) -> None:
        """Raises `Invalid` if a value is wrong beside this store URL."""
        self.etcd_naming_address(store)

    def listener_addresses(self) -> dict[str, str]:
        """Returns no address, since the clients of the dialect read and write etcd."""
        return {}

    def etcd_naming_address(self, store: str) -> EtcdAddress | None:
        """Returns the etcd cluster and prefix to use; None if etcd naming is off. Raises `Invalid`."""
        if not self.etcd_naming:
            return None
        store_address = (
            EtcdAddress.parse(store, "store").with_default_prefix(DEFAULT_STORE_PREFIX)
            if store.startswith(SCHEME)
            else None
        )
        if self.etcd_naming.startswith(SCHEME):
            address = EtcdAddress.parse(self.etcd_naming, "etcd_naming")
        elif store_address is None:
            raise Invalid(
                "etcd_naming", f"must be {SCHEME}HOST:PORT?prefix={self.etcd_naming}, since the store is not etcd"
            )
        else:
            address = replace(store_address, prefix=self.etcd_naming)
        shares_etcd = store_address is not None and {*store_address.hosts} & {*address.hosts}
        if store_address is not None and shares_etcd and naming.overlaps(address.prefix, store_address.prefix):
            raise Invalid(
                "etcd_naming",
                f"must not overlap {store_address.prefix}, the prefix of the store's own keys: use another prefix, "
                "such as services/",
            )
        return address
