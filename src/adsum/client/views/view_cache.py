"""The last good views on disk, so that a program can start while the registry is down.

Each service has one small file: a first line with the format and a checksum, then JSON. Files are replaced atomically
and not synced: after a power failure an older view, or none, is good enough.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from adsum.cache_files import replace_private_file
from adsum.client.sources.source import ViewPosition
from adsum.core.errors import Invalid
from adsum.core.model import Endpoint
from adsum.wire import InstanceView, ServiceView, decode, encode

FILE_FORMAT: Final = b"adsum-view 1"
"""The start of the first line; a file of another format is neither read nor changed."""
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
"""A larger file is ignored."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedView:
    """A view as stored on disk. `fresh_at` is wall time in seconds since 1970; it only serves to state the age."""

    position: ViewPosition
    endpoints: tuple[Endpoint, ...]
    fresh_at: float


class _Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fresh_at: float
    view: ServiceView


class ViewCache:
    """The cached views of one registry."""

    def __init__(self, folder: Path, urls: Sequence[str]) -> None:
        """Each registry has a sub-folder of its own, named by a hash of its addresses in any order."""
        name = hashlib.sha256("\n".join(sorted(urls)).encode()).hexdigest()[:16]
        self.folder = folder / name
        self._log_level = logging.WARNING

    def load(self, service: str) -> CachedView | None:
        """Returns the cached view; None if there is none or if it is invalid, which is logged."""
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
            _log.warning("the cached view of %s in %s is ignored: %s", service, path, error)
            return None
        return CachedView(ViewPosition(content.view.epoch, content.view.revision), endpoints, content.fresh_at)

    def save(self, service: str, view: CachedView) -> None:
        """Replaces the cached view of the service. An error is logged: the program runs without a cache.

        An empty view of a service that was never cached leaves no file, since requests may bring any number of names.
        """
        if not view.endpoints and not self._path(service).exists():
            return
        views = [InstanceView.from_endpoint(endpoint) for endpoint in view.endpoints]
        content = _Content(view.fresh_at, ServiceView(view.position.epoch, service, view.position.revision, views))
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_private_file(self._path(service), _sealed(encode(content)))
        except OSError as error:
            _log.log(self._log_level, "the view of %s can't be cached in %s: %s", service, self.folder, error)
            self._log_level = logging.DEBUG  # Every change tries again, so one warning is enough.

    def _path(self, service: str) -> Path:
        return self.folder / f"{service}.view"


def _sealed(body: bytes) -> bytes:
    return FILE_FORMAT + b" " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _open(sealed: bytes) -> _Content:
    head, _, body = sealed.partition(b"\n")
    if not head.startswith(FILE_FORMAT + b" "):
        raise Invalid("", "its format is unknown")
    if sealed != _sealed(body):
        raise Invalid("", "its checksum is wrong")
    return decode(body, _Content)
