"""The embedded store: one SQLite file, used by one daemon."""

from adsum.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
