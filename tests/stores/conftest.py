"""What the tests of stores share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.etcd_process import Etcd


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with Etcd(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd
