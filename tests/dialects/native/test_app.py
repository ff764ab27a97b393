from __future__ import annotations

import pytest

from adsum.core.access.actions import Action
from adsum.dialects.native import app
from adsum.dialects.native.api.operation import ApiOperation
from adsum.dialects.native.api.operation_table import OPERATIONS
from tests.dialects.native.native_api import NativeApi


def test_an_operation_without_a_method_is_reported_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = ApiOperation("forgotten", "GET", "/api/v1/forgotten", Action.PROBE, "Has no method", {204: None})
    monkeypatch.setattr(app, "OPERATIONS", (*OPERATIONS, unknown))
    with pytest.raises(LookupError, match="forgotten"):
        NativeApi()
