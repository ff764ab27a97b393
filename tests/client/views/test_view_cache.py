from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adsum.client.sources.source import ViewPosition
from adsum.client.views import view_cache
from adsum.client.views.view_cache import CachedView, ViewCache
from adsum.core.model import Endpoint, Instance, Status, freeze

VIEW = CachedView(
    ViewPosition("e1", 7),
    (
        Endpoint(Instance("orders", "a", "10.0.0.1", 80, "https", "z1", 3, ("t",), freeze({"k": "v"})), Status.WARNING),
        Endpoint(Instance("orders", "b", "::1", 81)),
    ),
    1_700_000_000.5,
)


@pytest.fixture
def cache(tmp_path: Path) -> ViewCache:
    return ViewCache(tmp_path, ["http://a:1"])


def file(cache: ViewCache) -> Path:
    return cache.folder / "orders.view"


def test_a_cached_view_is_loaded_as_it_was_saved(cache: ViewCache) -> None:
    cache.save("orders", VIEW)
    assert cache.load("orders") == VIEW


def test_a_cached_view_is_readable_by_its_owner_only_and_leaves_no_other_file(cache: ViewCache) -> None:
    cache.save("orders", VIEW)
    cache.save("orders", VIEW)
    assert [path.name for path in cache.folder.iterdir()] == ["orders.view"]
    assert file(cache).stat().st_mode & 0o777 == 0o600
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_an_empty_view_is_cached_only_for_a_service_that_had_endpoints(
    cache: ViewCache,
) -> None:
    empty = replace(VIEW, endpoints=())
    cache.save("orders", empty)
    assert cache.load("orders") is None
    cache.save("orders", VIEW)
    cache.save("orders", empty)
    assert cache.load("orders") == empty


def test_an_empty_cache_loads_nothing_and_logs_nothing(cache: ViewCache, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.load("orders") is None
    assert caplog.text == ""


@pytest.mark.parametrize("index", [0, 5, 20, 80, 90, 150, -1])
def test_a_view_with_one_byte_changed_is_ignored(
    cache: ViewCache, index: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache.save("orders", VIEW)
    content = bytearray(file(cache).read_bytes())
    content[index] ^= 1
    file(cache).write_bytes(content)
    assert cache.load("orders") is None
    assert "is ignored" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n", b"adsum-view 2 x\n{}", b"\x00" * 100, b"adsum-view 1 \n"])
def test_a_file_of_another_format_is_ignored(
    cache: ViewCache, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache.folder.mkdir(parents=True)
    file(cache).write_bytes(content)
    assert cache.load("orders") is None
    assert "is ignored" in caplog.text


def test_a_truncated_file_is_ignored(cache: ViewCache) -> None:
    cache.save("orders", VIEW)
    file(cache).write_bytes(file(cache).read_bytes()[:-10])
    assert cache.load("orders") is None


def test_the_view_of_another_service_is_ignored(cache: ViewCache) -> None:
    cache.save("orders", VIEW)
    file(cache).rename(cache.folder / "users.view")
    assert cache.load("users") is None


def test_a_file_that_is_too_large_is_not_read(cache: ViewCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.save("orders", VIEW)
    monkeypatch.setattr(view_cache, "MAX_FILE_BYTES", 10)
    assert cache.load("orders") is None


def test_views_of_different_registries_are_kept_apart(tmp_path: Path) -> None:
    ViewCache(tmp_path, ["http://a:1", "http://b:1"]).save("orders", VIEW)
    assert ViewCache(tmp_path, ["http://c:1"]).load("orders") is None
    assert ViewCache(tmp_path, ["http://b:1", "http://a:1"]).load("orders") == VIEW


def test_an_unwritable_cache_folder_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    ViewCache(tmp_path / "file", ["http://a:1"]).save("orders", VIEW)
    assert "can't be cached" in caplog.text
