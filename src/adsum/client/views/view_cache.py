"""The last good views on disk, so that a program can start while the registry is down.

One small file a service: a first line with the format and a checksum, then JSON. Files are replaced atomically and not
synced: after a power failure an older one, or none, is as good.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from adsum.client.sources.source import ViewPosition
from adsum.core.errors import Invalid
from adsum.core.model import Endpoint
from adsum.wire import InstanceView, ServiceView, decode, encode

FILE_FORMAT: Final = b"adsum-view 1"
"""The start of the first line; a file of another format is left alone and not read."""
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""Bytes; a larger file is not ours."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedView:
    """A view as it was kept. `fresh_at` is seconds since 1970, only to state its age."""

    position: ViewPosition
    endpoints: tuple[Endpoint, ...]
    fresh_at: float


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fresh_at: float
    view: ServiceView


class ViewCache:
    """The kept views of one registry."""

    def __init__(self, folder: Path, urls: Sequence[str]) -> None:
        """Views are kept apart by registry: its addresses, in any order."""
        name = hashlib.sha256("\n".join(sorted(urls)).encode()).hexdigest()[:16]
        self.folder = folder / name
        self._loudness = logging.WARNING

    def load(self, service: str) -> CachedView | None:
        """The kept view; None if there is none or it can't be trusted (then the log says why)."""
        path = self._path(service)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise Invalid("", f"it is larger than {MAX_FILE_BYTES} bytes")
            content = _open(path.read_bytes())
            if content.view.service != service:
                raise Invalid("view.service", f"is {content.view.service!r}")
            endpoints = tuple(view.to_endpoint(service) for view in content.view.instances)
        except FileNotFoundError:
            return None
        except (OSError, Invalid) as error:
            _log.warning("the kept view of %s in %s is ignored: %s", service, path, error)
            return None
        return CachedView(ViewPosition(content.view.epoch, content.view.revision), endpoints, content.fresh_at)

    def save(self, service: str, view: CachedView) -> None:
        """Keep the view instead of the one before. What goes wrong is logged: a program runs without it.

        A name that nobody was ever seen under leaves no file: requests may bring any number of them.
        """
        if not view.endpoints and not self._path(service).exists():
            return
        views = [InstanceView.from_endpoint(endpoint) for endpoint in view.endpoints]
        content = _Content(view.fresh_at, ServiceView(view.position.epoch, service, view.position.revision, views))
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(self._path(service), _sealed(encode(content)))
        except OSError as error:
            _log.log(self._loudness, "the view of %s can't be kept in %s: %s", service, self.folder, error)
            self._loudness = logging.DEBUG  # Once is enough: it is tried again at each change.

    def _path(self, service: str) -> Path:
        return self.folder / f"{service}.view"


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/adsum/views`, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "adsum" / "views"


def _sealed(body: bytes) -> bytes:
    return FILE_FORMAT + b" " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _open(sealed: bytes) -> _Content:
    head, _, body = sealed.partition(b"\n")
    if not head.startswith(FILE_FORMAT + b" "):
        raise Invalid("", "its format is unknown")
    if sealed != _sealed(body):
        raise Invalid("", "its checksum is wrong")
    return decode(body, _Content)


def _replace(path: Path, content: bytes) -> None:
    ahead = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(ahead, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        ahead.replace(path)
    except OSError:
        with suppress(OSError):
            ahead.unlink()
        raise
