"""Adsum: service discovery. See `adsum.client` for the library and `adsum --help` for the registry."""

__version__ = "0.1.0"
