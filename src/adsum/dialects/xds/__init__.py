"""xDS v3: the language of Envoy and of proxyless gRPC (ADS in both variants, LRS, MetricsService). See envoyproxy.io's
"xDS REST and gRPC protocol" for the rules that `delta`, `sotw` and `session` follow.
"""

from adsum.dialects.xds.telemetry.client_status import StreamStatus
from adsum.dialects.xds.telemetry.load_reports import InstanceTries
from adsum.dialects.xds.telemetry.refusals import RefusedClient
from adsum.dialects.xds.telemetry.traffic import TrafficSummary
from adsum.dialects.xds.xds import Xds

__all__ = ["InstanceTries", "RefusedClient", "StreamStatus", "TrafficSummary", "Xds"]
