"""The embedded store: one SQLite file, one daemon."""

from adsum.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
