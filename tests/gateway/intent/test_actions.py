from __future__ import annotations

from adsum.gateway.intent.actions import FAILURE_CONDITIONS, UNSENT_CONDITIONS, Retries, RetryOn


def test_unsent_requests_are_always_retried_and_failures_when_it_is_safe() -> None:
    assert Retries().conditions(idempotent=True) == UNSENT_CONDITIONS + FAILURE_CONDITIONS
    assert Retries().conditions(idempotent=False) == UNSENT_CONDITIONS
    assert Retries(unsafe=True).conditions(idempotent=False) == UNSENT_CONDITIONS + FAILURE_CONDITIONS
    assert Retries(on=(RetryOn.ANY_5XX,)).conditions(idempotent=True) == (*UNSENT_CONDITIONS, RetryOn.ANY_5XX)
    assert Retries(0).conditions(idempotent=True) == ()
