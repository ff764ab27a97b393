"""The JSON bodies of the native API, and their conversion to values of the model and back. Node and client share them.

`decode` decodes and validates a body in one step: the structs check types, bounds and unknown fields, the constructors
of the model check invariants. Encoded bodies leave out fields with their default value.
"""

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from adsum.wire.bulk_registration import (
    NamedRegistrationBody,
    RegisterBody,
    RegistrationAnswer,
    RegistrationResult,
    decode_registration,
    split_registrations,
)
from adsum.wire.codec import MAX_PROBLEM_LENGTH, decode, encode, find_repeated_key
from adsum.wire.instance_detail import CheckView, InstanceDetail, OverrideView
from adsum.wire.protocol import (
    ACTOR_HEADER,
    AGE_HEADER,
    EPOCH_HEADER,
    FORWARDED_BY_HEADER,
    FORWARDED_FOR_HEADER,
    FORWARDED_TO_HEADER,
    MAX_CHANGES_PER_RESPONSE,
    MAX_REGISTRATIONS,
    MAX_RENEWALS,
    MAX_WAIT,
    PROTOCOL,
    PROTOCOL_HEADER,
    REVISION_HEADER,
    HolderClaim,
    Id,
    Name,
    Port,
    Reason,
    StatusCode,
    Streak,
    Text,
    Wait,
)
from adsum.wire.requests import (
    AcknowledgementBody,
    CheckBody,
    LeaseBody,
    OverrideBody,
    RegistrationBody,
    RenewBody,
    RequestBody,
)
from adsum.wire.responses import (
    AcknowledgementReport,
    CertificateView,
    ChangeList,
    ChangeView,
    ConsumerView,
    DisconnectedGatewayView,
    GatewayView,
    LostLease,
    NodeStatus,
    PeerView,
    Problem,
    RefusedStreamView,
    RenewalResult,
    ResponseBody,
    ServiceList,
    ServiceSummary,
    TrafficView,
    WriteResult,
)
from adsum.wire.views import InstanceView, RemovedInstance, ServiceChange, ServiceView, WatchOpened, WatchSynced

if TYPE_CHECKING:
    from adsum.wire.documents import (
        EditList,
        EditView,
        EmptyTarget,
        IntentBody,
        IntentCache,
        RouteList,
        RouteView,
        UpstreamList,
        UpstreamView,
        encode_route,
        encode_upstream,
        is_visible,
        parse_document,
    )
    from adsum.wire.routes import RouteBody
    from adsum.wire.upstreams import UpstreamBody
    from adsum.wire.verdict import CheckRouteBody, DestinationView, SkippedRouteView, VerdictView

_LAZY: Final = MappingProxyType(
    {
        "CheckRouteBody": "verdict",
        "DestinationView": "verdict",
        "EditList": "documents",
        "EditView": "documents",
        "EmptyTarget": "documents",
        "IntentBody": "documents",
        "IntentCache": "documents",
        "RouteBody": "routes",
        "RouteList": "documents",
        "RouteView": "documents",
        "SkippedRouteView": "verdict",
        "UpstreamBody": "upstreams",
        "UpstreamList": "documents",
        "UpstreamView": "documents",
        "VerdictView": "verdict",
        "encode_route": "documents",
        "encode_upstream": "documents",
        "is_visible": "documents",
        "parse_document": "documents",
    }
)
"""Name about gateways → its module, loaded on first use. A program that only calls and registers never loads one."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


__all__ = [
    "ACTOR_HEADER",
    "AGE_HEADER",
    "EPOCH_HEADER",
    "FORWARDED_BY_HEADER",
    "FORWARDED_FOR_HEADER",
    "FORWARDED_TO_HEADER",
    "MAX_CHANGES_PER_RESPONSE",
    "MAX_PROBLEM_LENGTH",
    "MAX_REGISTRATIONS",
    "MAX_RENEWALS",
    "MAX_WAIT",
    "PROTOCOL",
    "PROTOCOL_HEADER",
    "REVISION_HEADER",
    "AcknowledgementBody",
    "AcknowledgementReport",
    "CertificateView",
    "ChangeList",
    "ChangeView",
    "CheckBody",
    "CheckRouteBody",
    "CheckView",
    "ConsumerView",
    "DestinationView",
    "DisconnectedGatewayView",
    "EditList",
    "EditView",
    "EmptyTarget",
    "GatewayView",
    "HolderClaim",
    "Id",
    "InstanceDetail",
    "InstanceView",
    "IntentBody",
    "IntentCache",
    "LeaseBody",
    "LostLease",
    "Name",
    "NamedRegistrationBody",
    "NodeStatus",
    "OverrideBody",
    "OverrideView",
    "PeerView",
    "Port",
    "Problem",
    "Reason",
    "RefusedStreamView",
    "RegisterBody",
    "RegistrationAnswer",
    "RegistrationBody",
    "RegistrationResult",
    "RemovedInstance",
    "RenewBody",
    "RenewalResult",
    "RequestBody",
    "ResponseBody",
    "RouteBody",
    "RouteList",
    "RouteView",
    "ServiceChange",
    "ServiceList",
    "ServiceSummary",
    "ServiceView",
    "SkippedRouteView",
    "StatusCode",
    "Streak",
    "Text",
    "TrafficView",
    "UpstreamBody",
    "UpstreamList",
    "UpstreamView",
    "VerdictView",
    "Wait",
    "WatchOpened",
    "WatchSynced",
    "WriteResult",
    "decode",
    "decode_registration",
    "encode",
    "encode_route",
    "encode_upstream",
    "find_repeated_key",
    "is_visible",
    "parse_document",
    "split_registrations",
]
