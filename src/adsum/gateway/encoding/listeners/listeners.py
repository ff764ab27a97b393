"""The listeners of a gateway. They depend on its profile alone, so that no change of routes drains connections."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.core.v3.protocol_pb2 import Http1ProtocolOptions, HttpProtocolOptions, KeepaliveSettings
from envoy.config.listener.v3.listener_components_pb2 import FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.extensions.request_id.uuid.v3.uuid_pb2 import UuidRequestIdConfig

from adsum.gateway.encoding import messages
from adsum.gateway.encoding.clusters import tls
from adsum.gateway.encoding.clusters.clusters import HTTP2_PING_INTERVAL, HTTP2_PING_TIMEOUT
from adsum.gateway.encoding.listeners import http_filters, request_sanitation
from adsum.gateway.encoding.listeners.access_logs import access_logs
from adsum.gateway.encoding.listeners.local_replies import local_replies
from adsum.gateway.encoding.routes.route_configuration import ROUTE_CONFIGURATION_NAME
from adsum.gateway.profile import GatewayProfile, split_address

STREAM_IDLE_TIMEOUT: Final = 3_600.0
"""Seconds after which a request or stream on which no bytes move is ended, unless its route sets another timeout.

Envoy's default of five minutes would end quiet WebSockets and gRPC streams.
"""
CONNECTION_IDLE_TIMEOUT: Final = 600.0
"""Seconds after which a caller's connection without requests is closed."""
HEADERS_TIMEOUT: Final = 10.0
"""Seconds within which a caller must send all headers of a request. It bounds the memory that slow callers hold."""
CONNECTION_BUFFER_BYTES: Final = 1024 * 1024
"""Bytes buffered for one connection, and the largest body of a request that can be retried."""
DEFAULT_HOST: Final = "localhost"
"""The host of HTTP/1.0 requests without a Host header."""

_MANAGER: Final = "envoy.filters.network.http_connection_manager"


def listener(address: str, profile: GatewayProfile) -> Any:
    """Returns the listener of a gateway at one of its addresses. Its name is the address."""
    ip, port = split_address("listen", address)
    chain = FilterChain()
    chain.filters.add(name=_MANAGER, typed_config=messages.any_message(_connection_manager(profile)))
    if profile.tls_certificate:
        chain.transport_socket.CopyFrom(tls.listener_transport())
    message = Listener(name=address, address=messages.socket_address(ip, port), filter_chains=[chain])
    message.per_connection_buffer_limit_bytes.value = CONNECTION_BUFFER_BYTES
    return message


def _connection_manager(profile: GatewayProfile) -> Any:
    manager = HttpConnectionManager(
        stat_prefix="gateway",
        codec_type=HttpConnectionManager.AUTO,
        http_filters=http_filters.chain(),
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        access_log=access_logs(profile.access_log),
        local_reply_config=local_replies(),
        # Services set the Server header themselves.
        server_header_transformation=HttpConnectionManager.PASS_THROUGH,
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=messages.duration(CONNECTION_IDLE_TIMEOUT),
            # WSGI and CGI programs can't distinguish x_user from x-user, so a caller could forge the latter.
            headers_with_underscores_action=HttpProtocolOptions.DROP_HEADER,
        ),
        http_protocol_options=Http1ProtocolOptions(accept_http_10=True, default_host_for_http_10=DEFAULT_HOST),
        strip_trailing_host_dot=True,
        stream_idle_timeout=messages.duration(STREAM_IDLE_TIMEOUT),
        request_headers_timeout=messages.duration(HEADERS_TIMEOUT),
        xff_num_trusted_hops=profile.trusted_hops,
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
    )
    manager.use_remote_address.value = True
    manager.http_protocol_options.ignore_http_11_upgrade.add().safe_regex.regex = (
        request_sanitation.other_upgrades_regex()
    )
    if not profile.trusted_hops:
        manager.early_header_mutation_extensions.append(request_sanitation.remove_forwarding_headers())
    # Routes and services see the same normalized path.
    manager.normalize_path.value = True
    manager.rds.route_config_name = ROUTE_CONFIGURATION_NAME
    manager.rds.config_source.CopyFrom(messages.ads_source())
    manager.http2_protocol_options.connection_keepalive.CopyFrom(
        KeepaliveSettings(
            interval=messages.duration(HTTP2_PING_INTERVAL), timeout=messages.duration(HTTP2_PING_TIMEOUT)
        )
    )
    ids = UuidRequestIdConfig()
    # A caller's request id stays unchanged: by default, Envoy writes a tracing bit into it.
    ids.pack_trace_reason.value = False
    ids.use_request_id_for_trace_sampling.value = False
    manager.request_id_extension.typed_config.CopyFrom(messages.any_message(ids))
    return manager
