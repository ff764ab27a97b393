"""Slows down callers that send wrong credentials again and again."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

from adsum.core.addresses import split_host_port
from adsum.core.token_bucket import TokenBucket

FAILURE_RATE: Final = 1.0
"""Wrong credentials per second that one address may send without being slowed down."""
FAILURE_BURST: Final = 10.0
"""Wrong credentials that one address may send at once: a fleet may start with an old token behind one address."""
MAX_FAILURE_DELAY: Final = 3.0
"""Seconds by which the answer to a wrong credential is delayed, at most. It is less than a request of our clients may
take, so that they learn the reason."""
MAX_FAILING_ADDRESSES: Final = 10_000
"""Addresses that are remembered. Past it the one that failed longest ago is forgotten, so its delay begins anew."""
IPV6_SITE_BITS: Final = 64
"""Leading bits of an IPv6 address that name one site: one host of it may use all addresses that begin with them."""


class FailureLimiter:
    """Counts wrong credentials by address, and says for how long to delay the answer. Time is monotonic seconds."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """The number of addresses that are remembered."""
        return len(self._buckets)

    def delay(self, address: str, now: float) -> float:
        """Counts a wrong credential from the address, with or without a port.

        Returns the seconds by which to delay the answer.
        """
        site = site_of(address)
        bucket = self._buckets.get(site)
        if bucket is None:
            bucket = self._buckets[site] = TokenBucket(FAILURE_RATE, FAILURE_BURST)
            if len(self._buckets) > MAX_FAILING_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(site)
        return bucket.delay(now, MAX_FAILURE_DELAY)


def site_of(address: str) -> str:
    """Returns the host of an address, without its port; of IPv6 the network of one site.

    An IPv4 address in IPv6 (`::ffff:a.b.c.d`) is the same host as the IPv4 address. A text that is no IP address is
    returned as it is.
    """
    for host in (address, split_host_port(address)[0]):
        try:
            ip = ip_address(host)
        except ValueError:
            continue
        if not isinstance(ip, IPv6Address):
            return str(ip)
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(IPv6Address(int(ip) >> (128 - IPV6_SITE_BITS) << (128 - IPV6_SITE_BITS)))
    return address
