"""xDS v3, the language of Envoy and of proxyless gRPC: ADS in both variants, LRS and MetricsService.

`streams.delta`, `streams.sotw` and `streams.session` follow the rules of "xDS REST and gRPC protocol" on envoyproxy.io.
This package imports nothing: `settings` is loaded by programs that need none of the rest.
"""
