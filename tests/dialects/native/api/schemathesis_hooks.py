"""A hook that shortens long polls before schemathesis sends them. `test_openapi.py` loads it."""

from __future__ import annotations

from typing import Any

import schemathesis

SHORT_WAIT = 0.01
"""Seconds. Nothing changes while schemathesis waits for a response, so every longer valid `wait` becomes this one."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    for values in (case.query, case.body):
        if isinstance(values, dict) and _is_long_wait(values.get("wait")):
            values["wait"] = SHORT_WAIT


def _is_long_wait(wait: object) -> bool:
    try:
        return SHORT_WAIT < float(str(wait)) <= 300
    except ValueError:
        return False
