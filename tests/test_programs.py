"""The search for external programs of the tests, and tests without one."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import etcd_process, hide_programs
from tests.support.programs import PROGRAMS

TESTS = Path(__file__).parent


def test_a_test_without_etcd_claims_no_port_and_names_the_searched_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROGRAMS, "etcd", replace(PROGRAMS["etcd"], command="no-such-program"))
    monkeypatch.setattr(etcd_process, "claim_free_port", lambda _: pytest.fail("a port was claimed"))
    for start in (etcd_process.EtcdProcess, lambda folder: etcd_process.etcd_cluster(folder).__enter__()):
        with pytest.raises(
            pytest.skip.Exception, match=r"etcd is not in the folders of PATH, /usr/sbin.*apt-get install"
        ):
            start(tmp_path)


def test_of_several_programs_the_one_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("path", "opt-1", "opt-2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "peer").touch(0o755)
    (tmp_path / "opt-3").mkdir()
    (tmp_path / "opt-3" / "peer").touch(0o644)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{tmp_path / 'nowhere'}")
    peer = replace(PROGRAMS["etcd"], command="peer", after=(f"{tmp_path}/opt-*",))
    assert [file.parent.name for file in peer.files()] == ["path", "opt-2", "opt-1"]
    assert replace(peer, packages=(str(tmp_path / "none"),)).find() is None


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_program_is_found_where_programs_are_hidden(name: str) -> None:
    search = f"from tests.support.programs import PROGRAMS; raise SystemExit(bool(PROGRAMS[{name!r}].find()))"
    command = [sys.executable, "-m", "tests.support.hide_programs", sys.executable, "-c", search]
    code = subprocess.run(command, cwd=TESTS.parent, check=False).returncode
    if code == hide_programs.NOT_PERMITTED:
        pytest.skip("this system permits no mount namespace")
    assert code == 0


def test_programs_are_searched_for_in_one_place() -> None:
    """`.ci/run` hides the programs that `tests.support.programs` finds. A search elsewhere could find others."""
    for path in TESTS.rglob("*.py"):
        if path.name not in ("programs.py", "hide_programs.py"):
            calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute))
            assert not any(node.attr == "which" for node in calls), f"{path}: use tests.support.programs.need"
