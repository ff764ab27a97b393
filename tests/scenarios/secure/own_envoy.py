"""The bootstrap of an Envoy that is not ours, as its owner writes it with the files of a joined host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

BOOTSTRAP = """
node: {{ id: my-envoy, cluster: mine, metadata: {{ adsum: {{ listen: ["{listen}"] }} }} }}
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [ {{ envoy_grpc: {{ cluster_name: registry }} }} ]
  cds_config: {{ resource_api_version: V3, ads: {{}} }}
  lds_config: {{ resource_api_version: V3, ads: {{}} }}
static_resources:
  clusters:
    - name: registry
      type: STATIC
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http2_protocol_options: {{}} }}
      load_assignment: {{ cluster_name: registry, endpoints: [ {{ lb_endpoints: [ {endpoints} ] }} ] }}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          common_tls_context:
            validation_context: {{ trusted_ca: {{ filename: {folder}/authority.pem }} }}
            tls_certificates:
              - certificate_chain: {{ filename: {folder}/client.pem }}
                private_key: {{ filename: {folder}/client.key }}
"""


def own_bootstrap(listen: str, nodes: Sequence[tuple[str, int]], folder: Path) -> str:
    """Returns the file. `nodes`: addresses of xDS; `folder`: what `adsum join` wrote."""
    endpoints = ", ".join(
        f"{{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }} }}"
        for host, port in nodes
    )
    return BOOTSTRAP.format(listen=listen, endpoints=endpoints, folder=folder)
