"""The retention of the log in etcd."""

from __future__ import annotations

from adsum.stores.etcd.layout import Layout
from adsum.stores.etcd.log_retention import LogRetention


def test_keys_that_no_node_wrote_are_skipped() -> None:
    layout = Layout(b"/adsum/")
    key = layout.log_key(7, "orders", 2)
    trail = LogRetention(layout)
    trail.load([b"/adsum/log/0000/a/b/c", key, b"/adsum/log/zzz"])
    assert trail.is_loaded
    assert trail.oldest("orders") == key
