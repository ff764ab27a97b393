"""What one peer, or all of them together, may make us hold; every bound says what happens at it."""

from __future__ import annotations

from typing import Final

from adsum.core import validation
from adsum.core.catalog.decisions import MAX_SERVICES
from adsum.gateway.intent.intent import MAX_SELECTORS

MAX_STREAMS: Final = 10_000
"""Streams at a time, fewer where descriptors are scarce; past it a new one is refused with RESOURCE_EXHAUSTED."""
MAX_GATEWAY_NAMES: Final = 2 * (MAX_SERVICES + MAX_SELECTORS)
"""Names that a subscription, or what a client brings along, may have; a stream with more is ended.

As many clusters as a gateway may be told of: a service, and each choice of its instances that a route makes, may have a
cluster of each version of HTTP.
"""
MAX_NAME_BYTES: Final = 1024 * 1024 * 1024
"""Bytes of the names that all clients gave, about: 3 million names, which is 100 gateways of 25,000 services. Past it a
stream that gives more is ended."""
NAME_OVERHEAD_BYTES: Final = 300
"""Bytes that a name takes in a subscription beside its characters."""
MAX_GRPC_NAMES: Final = 2_000
"""Names that a gRPC client's subscription may have; a stream with more is ended."""
MAX_GRPC_RESOURCES: Final = 200_000
"""Different resources that gRPC clients name at a time; past it a stream that names yet another one is ended."""
MAX_NAME_LENGTH: Final = 512
"""Characters of a name, of a version and of a nonce; a stream that says longer ones is ended."""
MAX_NODE_LENGTH: Final = validation.MAX_NODE_ID_LENGTH
"""Characters of a node's id and of what it calls itself; a stream with longer ones is ended."""
MAX_GATEWAY_PROFILES: Final = 256
"""Different shapes of gateways at a time; past it a gateway of yet another one is refused."""
MAX_REJECTION_LENGTH: Final = 1_024
"""Characters that are kept of why a client rejects something; the rest is cut."""
MAX_LISTED_SERVICES: Final = 5
"""Services that a status names of those with one trouble; of more it says how many."""
MAX_CAUSE_LENGTH: Final = 256
"""Characters that callers are told of why a gateway refuses what it is told of a service; the rest is cut."""
REJECTED_RETRY_INTERVAL: Final = 60.0
"""Seconds after which a gateway is told again what it refused; at once if that changes."""
MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a request: a gateway that comes back with `MAX_GATEWAY_NAMES` assignments names each of them twice, and its version.
A stream that sends a longer one is ended."""
MAX_RESPONSE_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a delta response; what is left is said in the next one, once this one is acknowledged."""
REQUESTS_PER_SECOND: Final = 1_000
"""Requests a second that a stream may go on sending; one that sends more waits its turn."""
REQUEST_BURST: Final = 2_000
"""Requests that a stream may send at once before that."""
MAX_INLINE_COMPILATION: Final = 100
"""Services or routes that are compiled at once; more are compiled in a thread, and told when that is done."""
STALL_TIMEOUT: Final = 30.0
"""Seconds after which a peer that does not read what is sent to it is cut off."""
MAX_UNSENT_BYTES: Final = 256 * 1024 * 1024
"""Bytes on their way to all peers; past it those are cut off that have not read for longest."""
DEPENDENCY_TIMEOUT: Final = 5.0
"""Seconds for which listeners and routes wait for what they name to be acknowledged; then they are sent anyway."""
SETTLING_TIME: Final = 30.0
"""Seconds after a start with an empty catalog, or after another epoch began, in which nothing is taken from clients
that know something: instances come back by themselves, and registrars ask after themselves about every 10 s."""
ACK_DELAY: Final = 0.1
"""Seconds from a client's ACK until it counts as routing by what it acknowledged: an ACK says that the configuration
was taken, and its workers take theirs a moment later (measured: requests arrive for up to 3 ms more)."""
SWEEP_INTERVAL: Final = 1.0
"""Seconds between two looks for streams that stall, or have waited for long enough."""
MAX_PUSHES_PER_TURN: Final = 64
"""Streams that are told at once; of more, the rest is told after others had their turn."""
LOAD_REPORT_INTERVAL: Final = 5
"""Seconds between two reports of load by a client; Envoy counts for a service from the first one after that came."""
MAX_REPORTED_ENDPOINTS: Final = 20_000
"""Places (service, address, port) whose load is kept; further ones are not counted, those that left are forgotten."""
MAX_REPORTED_CLUSTERS: Final = 20_000
"""Pairs of gateway and cluster whose figures are kept; further ones are not shown, those that left are forgotten."""
MAX_LATENCY_BUCKETS: Final = 64
"""Buckets of latencies; a stream that tells more is ended."""
MAX_COUNTER_VALUE: Final = 2**53
"""What a gateway may count to, as its floats do; a stream that says more is ended."""
