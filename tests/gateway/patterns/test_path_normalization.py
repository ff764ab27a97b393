from __future__ import annotations

import pytest

from adsum.gateway.patterns.path_normalization import normalize


@pytest.mark.parametrize(
    ("path", "normalized"),
    [
        ("/a/../b", "/b"),
        ("/a/./b/", "/a/b/"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/%61", "/a"),
        ("/%2F", "/%2F"),
        ("/a//b", "/a//b"),
        ("/%2e%2e/x", "/x"),
        ("/a\\b", "/a/b"),
        ("/a/..;x/b", "/b"),
        ("/a/.;/b", "/a/b"),
        ("/a/%2e%2e;/b", "/a/..;/b"),
        ("/a\\..;", "/a/..;"),
        ("/a;x/b", "/a;x/b"),
        ('/{id}/"<^`|>', "/%7Bid%7D/%22%3C%5E%60%7C%3E"),
        ("/%zz%", "/%zz%"),
        ("/%%41%41", "/%25AA"),
        ("/%2%41", "/%252A"),
    ],
)
def test_paths_are_normalized_as_envoy_normalizes_them(path: str, normalized: str) -> None:
    assert normalize(path) == normalized
