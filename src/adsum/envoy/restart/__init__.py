"""Draining an Envoy and replacing it without a gap. Only this package acts on its process by more than signals."""
