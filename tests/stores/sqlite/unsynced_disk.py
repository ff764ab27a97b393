"""A disk that keeps what was synced, and any part of what was not, when the power fails.

It replays the system calls of a process, which `strace` has recorded. A block of a file is in the state of any moment
since the last sync of the file, each block for itself. Names in a folder appear in order, and are certain when the
folder is synced.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SYSTEM_CALLS: Final = (
    "openat,open,creat,pwrite64,pwritev,write,writev,fdatasync,fsync,ftruncate,fallocate,rename,renameat,renameat2,"
    "unlink,unlinkat,mkdir,mkdirat,link,linkat"
)
"""The system calls to record: all that programs use to change files."""
BLOCK: Final = 4_096
"""Bytes that a disk writes at once."""

_LINE: Final = re.compile(rb"(\d+) +(?:<\.\.\. (\w+) resumed>)?(.*)")
_CALL: Final = re.compile(rb"(\w+)\((.*)\) += (-?\d+)(?:<([^>]*)>)?(?: .*)?$", re.DOTALL)
_TEXT: Final = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"')
_OPEN_FILE: Final = re.compile(rb"^(\d+)<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True, slots=True)
class SystemCall:
    """A call with its arguments as text. `has_ended` is False at its start, if other calls come before its end."""

    name: str
    arguments: bytes
    result: int
    has_ended: bool
    key: tuple[bytes, int]
    """The process and the number of the call, the same at its start and at its end."""

    def texts(self) -> list[bytes]:
        """Returns the quoted arguments."""
        return [_decoded(text) for text in _TEXT.findall(self.arguments)]

    def path(self) -> Path | None:
        """Returns the path of the open file that is the first argument; None for a pipe or a socket."""
        found = _OPEN_FILE.match(self.arguments)
        path = _decoded(found[2]).decode() if found else ""
        return Path(path.removesuffix(" (deleted)")) if path.startswith("/") else None

    def last_number(self) -> int:
        return int(self.arguments.rpartition(b", ")[2])


def _decoded(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode())


def read_trace(path: Path) -> Iterator[SystemCall]:
    """Yields the calls of the output of `strace -f -y -xx`. A call that others interrupt is yielded twice."""
    unfinished: dict[bytes, tuple[bytes, int]] = {}
    for number, line in enumerate(path.read_bytes().splitlines()):
        found = _LINE.fullmatch(line)
        if found is None or found[3].startswith((b"+++", b"---")):
            continue
        process, resumed, rest = found.groups()
        start = number
        if resumed is not None and process in unfinished:
            head, start = unfinished.pop(process)
            rest = head + rest
        elif rest.endswith(b" <unfinished ...>"):
            head = rest.removesuffix(b" <unfinished ...>")
            unfinished[process] = (head, number)
            name, _, arguments = head.partition(b"(")
            yield SystemCall(name.decode(), arguments, 0, has_ended=False, key=(process, number))
            continue
        if call := _CALL.fullmatch(rest):
            yield SystemCall(call[1].decode(), call[2], int(call[3]), has_ended=True, key=(process, start))


@dataclass
class _File:
    """The synced contents of a file, and the writes and truncations since then."""

    synced: bytes = b""
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Offset and content; without content, the new size."""

    def contents(self, changes: int) -> bytes:
        """Returns the contents after so many of the changes."""
        content = bytearray(self.synced)
        for offset, written in self.changes[:changes]:
            if written is None:
                content[offset:] = bytes(max(0, offset - len(content)))
            else:
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(written)] = written
        return bytes(content)

    def after_power_cut(self, rng: random.Random) -> bytes:
        """Returns the contents with each block, and the size, of any moment since the last sync."""
        moments = [self.contents(changes) for changes in range(len(self.changes) + 1)]
        size = len(rng.choice(moments))
        blocks = (rng.choice(moments)[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, size, BLOCK))
        return b"".join(blocks)[:size]


class UnsyncedDisk:
    """The files below a folder. Everything is synced at first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Path, _File | None] = {}
        """The names as programs see them. A folder has no file."""
        self._synced_names: dict[Path, _File | None] = {}
        self._name_changes: dict[Path, list[tuple[Path, bool, _File | None]]] = {}
        """Folder → changes of its names since it was synced: path, whether it exists afterwards, and the file."""
        self._syncs: dict[tuple[bytes, int], int] = {}
        """Sync that has started → number of changes that it covers."""
        self.syncs = 0
        """The number of syncs of files and folders."""

    def replay(self, call: SystemCall) -> None:
        """Applies a call."""
        if call.result < 0:
            return
        match call.name:
            case "pwrite64" | "write" | "ftruncate" | "fdatasync" | "fsync":
                path = call.path()
                if path is not None and path.is_relative_to(self._folder):
                    self._replay_on_file(call, path)
            case "openat" | "open" | "creat" if call.has_ended and b"O_CREAT" in call.arguments:
                path = Path(call.texts()[0].decode())
                if path.is_relative_to(self._folder) and path not in self._names:
                    self._set(path, _File())
            case "mkdir" if call.has_ended and self._has(call):
                self._set(Path(call.texts()[0].decode()), None)
            case "unlink" if call.has_ended and self._has(call):
                self._remove(Path(call.texts()[0].decode()))
            case "openat" | "open" | "creat" | "mkdir" | "unlink":
                pass
            case _:
                assert str(self._folder).encode() not in b" ".join(call.texts()), f"{call.name} is not replayed"

    def _has(self, call: SystemCall) -> bool:
        return Path(call.texts()[0].decode()).is_relative_to(self._folder)

    def _replay_on_file(self, call: SystemCall, path: Path) -> None:
        file = self._names.get(path)
        is_start = not call.has_ended or call.key not in self._syncs
        if call.name in ("fdatasync", "fsync"):
            changes = len(file.changes) if file is not None else len(self._name_changes.get(path, ()))
            covered = self._syncs.setdefault(call.key, changes)
            if call.has_ended:
                self.syncs += 1
                del self._syncs[call.key]
                self._sync(path, file, covered)
        elif file is not None and is_start and (call.has_ended or call.name != "ftruncate"):
            if call.name == "pwrite64":
                file.changes.append((call.last_number(), call.texts()[0]))
            elif call.name == "ftruncate":
                file.changes.append((call.last_number(), None))
            else:
                raise AssertionError(f"{path} is written without an offset")

    def _sync(self, path: Path, file: _File | None, covered: int) -> None:
        if file is not None:
            file.synced = file.contents(covered)
            del file.changes[:covered]
            return
        for name, exists, changed in self._name_changes.get(path, [])[:covered]:
            self._apply(self._synced_names, name, exists=exists, file=changed)
        del self._name_changes.get(path, [])[:covered]

    def _set(self, path: Path, file: _File | None) -> None:
        self._names[path] = file
        self._name_changes.setdefault(path.parent, []).append((path, True, file))

    def _remove(self, path: Path) -> None:
        self._names.pop(path, None)
        self._name_changes.setdefault(path.parent, []).append((path, False, None))

    @staticmethod
    def _apply(names: dict[Path, _File | None], path: Path, *, exists: bool, file: _File | None) -> None:
        if exists:
            names[path] = file
        else:
            names.pop(path, None)

    def save_after_power_cut(self, target: Path, rng: random.Random | None) -> None:
        """Writes the files to the new folder `target` as after a power cut; without `rng`, all unsynced is lost."""
        names = dict(self._synced_names)
        for changes in self._name_changes.values():
            for name, exists, file in changes[: rng.randint(0, len(changes)) if rng is not None else 0]:
                self._apply(names, name, exists=exists, file=file)
        target.mkdir()
        for path, file in sorted(names.items(), key=lambda item: len(item[0].parts)):
            copy = target / path.relative_to(self._folder)
            if not copy.parent.exists():
                continue  # The name of its folder is lost.
            if file is None:
                copy.mkdir()
            else:
                copy.write_bytes(file.synced if rng is None else file.after_power_cut(rng))
