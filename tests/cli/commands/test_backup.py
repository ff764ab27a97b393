"""The commands `adsum backup` and `adsum restore`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Adsum
from tests.stores.sqlite.test_backup import ids, store
from tests.stores.sqlite.test_backup import path as path

__all__ = ["path", "store"]


@pytest.mark.usefixtures("store")
def test_a_backup_of_a_running_registry_is_made(adsum: Adsum, path: Path, tmp_path: Path) -> None:
    to = tmp_path / "backup.db"
    result = adsum("backup", str(to), "--store", f"sqlite:///{path}")
    assert (result.code, result.out) == (0, "")
    counts = "2 instances, 1 routes and upstreams, 1 tokens and invites, at revision 1"
    assert result.err == f"{to} holds {counts}, of {path}\n"
    again = adsum("backup", str(to), "--store", f"sqlite:///{path}")
    assert again.code == 1
    assert again.err.startswith(f"adsum: no backup was made: {to} exists")
    refused = adsum("restore", str(to), "--store", f"sqlite:///{path}")
    assert refused.code == 1
    assert refused.err.startswith(f"adsum: nothing was restored: {path}: another registry uses it (process ")


async def test_a_backup_is_restored(adsum: Adsum, store: object, path: Path, tmp_path: Path) -> None:
    to, new = tmp_path / "backup.db", tmp_path / "new" / "adsum.db"
    assert adsum("backup", str(to), "--store", f"sqlite:///{path}").code == 0
    result = adsum("restore", str(to), "--store", f"sqlite:///{new}")
    assert (result.code, result.err) == (
        0,
        f"{new} holds 2 instances, 1 routes and upstreams, 1 tokens and invites, at revision 1\n",
    )
    again = adsum("restore", str(to), "--store", f"sqlite:///{new}")
    kept = f"{new}.before-restore"
    assert again.err.endswith(f", at revision 1; the previous file is kept as {kept}\n")
    assert await ids(new) == {"o1", "o2"}


@pytest.mark.parametrize(
    ("url", "words"), [("memory:", "it keeps nothing"), ("etcd://localhost:2379", "use `etcdctl snapshot`")]
)
@pytest.mark.parametrize("command", ["backup", "restore"])
def test_backup_names_the_remedy_for_other_stores(
    adsum: Adsum, command: str, url: str, words: str, tmp_path: Path
) -> None:
    result = adsum(command, str(tmp_path / "x.db"), "--store", url)
    assert result.code == 78
    assert words in result.err
