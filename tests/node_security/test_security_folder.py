"""The folder with a node's secrets: who may read it, and who may use it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from adsum.core.errors import Invalid
from adsum.node_security.security_folder import MAX_FILE_BYTES, SecurityFolder, SecurityFolderInUse


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> SecurityFolder:
    folder = SecurityFolder(tmp_path / "data")
    folder.create()
    return folder


def test_only_the_owner_may_read_the_folder_and_its_files(folder: SecurityFolder) -> None:
    folder.write("node.key", b"secret")
    folder.write("operator/token", b"secret")
    for path in (folder.path.parent, folder.path, folder.file("operator")):
        assert _mode(path) == 0o700
    for path in (folder.file("node.key"), folder.file("operator/token")):
        assert _mode(path) == 0o600


def test_a_folder_that_others_could_use_is_closed_to_them(
    folder: SecurityFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.path.chmod(0o755)
    folder.create()
    assert _mode(folder.path) == 0o700
    assert "other users could use" in caplog.text


def test_a_replaced_file_leaves_nothing_else_behind(folder: SecurityFolder) -> None:
    folder.file("node.pem").write_bytes(b"old")
    folder.file("node.pem").chmod(0o644)
    assert folder.write_if_changed("node.pem", b"new")
    assert not folder.write_if_changed("node.pem", b"new")
    assert folder.read("node.pem") == b"new"
    assert _mode(folder.file("node.pem")) == 0o600
    assert [path.name for path in folder.path.iterdir()] == ["node.pem"]


def test_a_missing_file_is_none_and_a_huge_one_is_refused(folder: SecurityFolder) -> None:
    assert folder.read("node.pem") is None
    folder.file("node.pem").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(Invalid, match=r"node\.pem must have at most"):
        folder.read("node.pem")


def test_a_folder_that_cannot_be_made_is_an_error_of_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Invalid, match=r"Not a directory|File exists") as refused:
        SecurityFolder(tmp_path / "file").create()
    assert refused.value.field == "data"
    folder = SecurityFolder(tmp_path)
    folder.create()
    folder.file("node.key").mkdir()
    with pytest.raises(Invalid, match=r"node\.key: Is a directory"):
        folder.read("node.key")
    with pytest.raises(Invalid, match=r"node\.key: Is a directory"):
        folder.write("node.key", b"")


def test_one_node_at_a_time_uses_the_folder(folder: SecurityFolder) -> None:
    other = SecurityFolder(folder.path.parent)
    folder.lock()
    with pytest.raises(SecurityFolderInUse, match="--data"):
        other.lock()
    folder.unlock()
    folder.unlock()
    other.lock()
    other.unlock()
