"""The settings of an instance that a command registers: the table [instance]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adsum.core.model import DEFAULT_GRACE, DEFAULT_TTL, EMPTY_MAPPING
from adsum.core.validation import MAX_PORT
from adsum.settings import check_range, setting


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """The instance that `adsum run` and `adsum register` register. Its values are validated when it is made."""

    service: str = setting("Name of the service that the instance provides; `adsum run` requires it", default="")
    port: int = setting("Port that the instance listens on", default=0)
    id: str = setting("Id of the instance, unique within its service (default: <host>-<address>-<port>)", default="")
    address: str = setting(
        "Address at which the instance is called (default: the address from which this host reaches the registry)",
        default="",
    )
    scheme: str = setting("Scheme of the instance's URL: http, https, grpc …", default="http")
    weight: int = setting(
        "Share of the calls, relative to the weights of the other instances; 0: only called if no other can be",
        default=1,
    )
    tag: tuple[str, ...] = setting("Tag by which instances are selected; may be given several times", default=())
    metadata: Mapping[str, str] = setting(
        "Metadata of the instance; may be given several times",
        metavar="KEY=VALUE",
        default_factory=lambda: EMPTY_MAPPING,
    )
    check: tuple[str, ...] = setting(
        "Health check that the registry runs: http:/health, tcp, grpc or, with options, "
        "http:8081:/health?interval=5s; may be given several times",
        default=(),
    )
    ttl: float | None = setting(
        "Time for which the lease is valid without a renewal; the instance is critical after it. none: no lease, "
        "listed until deregistered",
        duration=True,
        default=DEFAULT_TTL,
    )
    grace: float = setting(
        "Time for which the instance stays listed as critical after its lease has lapsed; then it is removed",
        duration=True,
        default=DEFAULT_GRACE,
    )
    take_over: bool = setting("Take the id even from a live process at another address or port", default=False)

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, MAX_PORT)
