"""
Tokens that never expire, from an issuer that somebody trusts.

A token that may be used once is remembered until it expires. If the issuer says the year 9999, the
store would keep it for ever, and with it every other token that the issuer cares to make.
"""

from __future__ import annotations

from collections.abc import Callable

from federation.state.memory import MemoryStore
from tests.harness.broker import InProcess, refusal
from tests.harness.builders import NOW

DAY = 24 * 3600
YEAR_9999 = 253_402_300_000


class Noting(MemoryStore):
    """A store that notes until when each token stays spent."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.until: list[float] = []

    async def spend(self, key: str, until: float, issued: float) -> bool:
        self.until.append(until)
        return await super().spend(key, until, issued)


def remembered(broker: InProcess) -> float:
    assert isinstance(broker.state, Noting)
    return broker.state.until[-1] - NOW


def test_a_token_that_never_expires_is_remembered_for_a_month() -> None:
    broker = InProcess(state=Noting)
    assert broker.exchange(broker.job(iat=NOW, exp=YEAR_9999)).status_code == 200
    assert 30 * DAY < remembered(broker) < 32 * DAY


def test_it_is_not_taken_again_once_it_is_forgotten() -> None:
    broker = InProcess(state=Noting)
    token, second = (broker.job(iat=NOW, exp=YEAR_9999) for _ in range(2))
    assert broker.exchange(token).status_code == 200
    broker.clock.now = NOW + remembered(broker) - 40
    assert refusal(broker.exchange(token)) == (400, "already_used")
    assert broker.exchange(second).status_code == 200, "a job may run for weeks"
    third = broker.job(iat=NOW, exp=YEAR_9999)
    for later in (-5, 0, 1, 1000, 400 * DAY):
        broker.clock.now = NOW + remembered(broker) + later
        for one in (token, third):
            assert refusal(broker.exchange(one)) == (400, "expired")
