"""The native JSON, shared by both ends: what travels, and how it becomes the model's values and back.

Bodies are decoded and validated in one step (`decode`): types, bounds and unknown fields by the structs, invariants by
the model's constructors. Answers leave out fields that have their default value.
"""

from adsum.wire.answers import (
    Answer,
    ChangeList,
    ChangeView,
    Lost,
    NodeStatus,
    Problem,
    Renewed,
    ServiceList,
    ServiceSummary,
    Written,
)
from adsum.wire.codec import MAX_TOLD, decode, encode
from adsum.wire.detail import CheckView, InstanceDetail, OverrideView
from adsum.wire.requests import AppliedBody, CheckBody, LeaseBody, OverrideBody, RegistrationBody, RenewBody, Request
from adsum.wire.views import Gone, InstanceView, Opened, ServiceChange, ServiceView, Synced
from adsum.wire.words import (
    ACTOR_HEADER,
    AGE_HEADER,
    EPOCH_HEADER,
    MAX_HISTORY,
    MAX_RENEWALS,
    MAX_WAIT,
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

__all__ = [
    "ACTOR_HEADER",
    "AGE_HEADER",
    "EPOCH_HEADER",
    "MAX_HISTORY",
    "MAX_RENEWALS",
    "MAX_TOLD",
    "MAX_WAIT",
    "REVISION_HEADER",
    "Answer",
    "AppliedBody",
    "ChangeList",
    "ChangeView",
    "CheckBody",
    "CheckView",
    "Claim",
    "Code",
    "Gone",
    "Id",
    "InstanceDetail",
    "InstanceView",
    "LeaseBody",
    "Lost",
    "Name",
    "NodeStatus",
    "Opened",
    "OverrideBody",
    "OverrideView",
    "Port",
    "Problem",
    "Reason",
    "RegistrationBody",
    "RenewBody",
    "Renewed",
    "Request",
    "ServiceChange",
    "ServiceList",
    "ServiceSummary",
    "ServiceView",
    "Streak",
    "Synced",
    "Text",
    "Wait",
    "Written",
    "decode",
    "encode",
]
