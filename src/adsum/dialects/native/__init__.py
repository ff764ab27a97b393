"""The native HTTP API with Server-Sent Events; what travels is defined in `adsum.wire`."""

from adsum.dialects.native.app import Native

__all__ = ["Native"]
