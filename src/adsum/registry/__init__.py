"""The registry, the only writer of the catalog: request → changes → store → snapshot → watchers."""

from adsum.registry.registry import Registry

__all__ = ["Registry"]
