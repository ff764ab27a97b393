"""Fixtures for the tests of stores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.etcd_process import EtcdProcess


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    with EtcdProcess(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd
