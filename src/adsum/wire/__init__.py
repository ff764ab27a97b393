"""The native JSON, shared by both ends: what travels, and how it becomes the model's values and back.

Bodies are decoded and validated in one step (`decode`): types, bounds and unknown fields by the structs, invariants by
the model's constructors. Answers leave out fields that have their default value.
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from adsum.wire.codec import MAX_TOLD, decode, encode, repeated_key
from adsum.wire.instance_detail import CheckView, InstanceDetail, OverrideView
from adsum.wire.protocol import (
    ACTOR_HEADER,
    AGE_HEADER,
    EPOCH_HEADER,
    MAX_HISTORY,
    MAX_RENEWALS,
    MAX_WAIT,
    PASSED_ON_HEADER,
    PROTOCOL,
    PROTOCOL_HEADER,
    REVISION_HEADER,
    Claim,
    Code,
    Id,
    Name,
    Port,
    Reason,
    Streak,
    Text,
    Wait,
)
from adsum.wire.requests import AppliedBody, CheckBody, LeaseBody, OverrideBody, RegistrationBody, RenewBody, Request
from adsum.wire.responses import (
    Answer,
    ChangeList,
    ChangeView,
    ConsumerView,
    DepartedView,
    GatewayView,
    Lost,
    NodeStatus,
    PeerView,
    Problem,
    RefusedView,
    Renewed,
    ServiceList,
    ServiceSummary,
    TrafficView,
    Unaware,
    Written,
)
from adsum.wire.views import Gone, InstanceView, Opened, ServiceChange, ServiceView, Synced

if TYPE_CHECKING:
    from adsum.wire.documents import (
        EditList,
        EditView,
        EmptyTarget,
        IntentBody,
        Intents,
        RouteList,
        RouteView,
        UpstreamList,
        UpstreamView,
        meaning,
        written_route,
        written_upstream,
    )
    from adsum.wire.routes import RouteBody
    from adsum.wire.upstreams import UpstreamBody
    from adsum.wire.verdict import CheckRouteBody, DestinationView, PassedView, VerdictView

_WHEN_ASKED_FOR: Final = MappingProxyType(
    {
        "CheckRouteBody": "verdict",
        "DestinationView": "verdict",
        "EditList": "documents",
        "EditView": "documents",
        "EmptyTarget": "documents",
        "IntentBody": "documents",
        "Intents": "documents",
        "meaning": "documents",
        "PassedView": "verdict",
        "RouteBody": "routes",
        "RouteList": "documents",
        "RouteView": "documents",
        "UpstreamBody": "upstreams",
        "UpstreamList": "documents",
        "UpstreamView": "documents",
        "VerdictView": "verdict",
        "written_route": "documents",
        "written_upstream": "documents",
    }
)
"""What is about gateways, and in which file it is: a program that only calls and registers never loads it."""


def __getattr__(name: str) -> Any:
    if name not in _WHEN_ASKED_FOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHEN_ASKED_FOR[name]}"), name)


__all__ = [
    "ACTOR_HEADER",
    "AGE_HEADER",
    "EPOCH_HEADER",
    "MAX_HISTORY",
    "MAX_RENEWALS",
    "MAX_TOLD",
    "MAX_WAIT",
    "PASSED_ON_HEADER",
    "PROTOCOL",
    "PROTOCOL_HEADER",
    "REVISION_HEADER",
    "Answer",
    "AppliedBody",
    "ChangeList",
    "ChangeView",
    "CheckBody",
    "CheckRouteBody",
    "CheckView",
    "Claim",
    "Code",
    "ConsumerView",
    "DepartedView",
    "DestinationView",
    "EditList",
    "EditView",
    "EmptyTarget",
    "GatewayView",
    "Gone",
    "Id",
    "InstanceDetail",
    "InstanceView",
    "IntentBody",
    "Intents",
    "LeaseBody",
    "Lost",
    "Name",
    "NodeStatus",
    "Opened",
    "OverrideBody",
    "OverrideView",
    "PassedView",
    "PeerView",
    "Port",
    "Problem",
    "Reason",
    "RefusedView",
    "RegistrationBody",
    "RenewBody",
    "Renewed",
    "Request",
    "RouteBody",
    "RouteList",
    "RouteView",
    "ServiceChange",
    "ServiceList",
    "ServiceSummary",
    "ServiceView",
    "Streak",
    "Synced",
    "Text",
    "TrafficView",
    "Unaware",
    "UpstreamBody",
    "UpstreamList",
    "UpstreamView",
    "VerdictView",
    "Wait",
    "Written",
    "decode",
    "encode",
    "meaning",
    "repeated_key",
    "written_route",
    "written_upstream",
]
