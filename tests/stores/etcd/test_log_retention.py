"""The retention of the log in etcd."""

from __future__ import annotations

from adsum.stores.etcd.layout import Layout
from adsum.stores.etcd.log_retention import LogRetention


def test_keys_that_no_node_wrote_are_skipped() -> None:
    layout = Layout(b"/adsum/")
    key = layout.log_key(7, "orders", 2)
    retention = LogRetention(layout)
    retention.load([b"/adsum/log/0000/a/b/c", key, b"/adsum/log/zzz"])
    assert retention.is_loaded
    assert retention.oldest("orders") == key
