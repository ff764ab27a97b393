"""The native dialect: the HTTP API with Server-Sent Events. `adsum.wire` defines its bodies."""

from adsum.dialects.native.app import Native

__all__ = ["Native"]
