"""Draining an Envoy and replacing it without a gap. This package alone acts on Envoy's process from outside."""
