from __future__ import annotations

import pytest

from adsum.gateway.route_check import path_rewrites


@pytest.mark.parametrize(
    ("stem", "prefix", "path", "rewritten"),
    [
        ("/a", "/", "/a", "/"),
        ("/a", "/", "/a/", "/"),
        ("/a", "/", "/a/x", "/x"),
        ("/a", "/", "/a//x", "//x"),
        ("/a", "/b", "/a", "/b"),
        ("/a", "/b", "/a/x", "/b/x"),
        ("/a", "/b/", "/a/x", "/b/x"),
        ("", "/b", "/x", "/b/x"),
        ("", "/b", "/", "/b/"),
    ],
)
def test_a_slash_is_neither_doubled_nor_lost(stem: str, prefix: str, path: str, rewritten: str) -> None:
    assert path_rewrites.replace_prefix(stem, prefix, path) == rewritten
