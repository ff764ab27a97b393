from __future__ import annotations

import pytest

from tests.servers.grpc.serving import GrpcServing
from tests.support.server_certificates import FakeServerCertificates


@pytest.fixture(params=["plain", "tls"])
def serving(request: pytest.FixtureRequest) -> GrpcServing:
    return GrpcServing(FakeServerCertificates() if request.param == "tls" else None)
