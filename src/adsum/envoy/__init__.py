"""Runs a gateway: an Envoy that is configured, watched, restarted, replaced without a gap, and drained."""
