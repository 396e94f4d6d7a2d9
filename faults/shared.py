"""Break Redis behind two replicas, and let two replicas race for a token."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from faults.outcome import Outcome, Run, until
from faults.processes import Broker, Redis, running, start
from faults.trail import broken_promises
from faults.wire import Wire
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load, Sent, exchange, granted, quantiles_ms, summary
from tests.harness.redis import empty_redis
from tests.harness.signing import signing_key

_AHEAD_SECONDS = 29.0
"""Tokens are dated ahead within the leeway of 30 s, so that no test has to wait for it."""
_BEYOND_SECONDS = 2.5
"""After so long, a token dated so is newer than the loss of data, whatever `iat` rounds to."""


@dataclass(slots=True)
class _Replicas:
    """Two brokers that share a Redis, each through a TCP proxy of its own."""

    issuer: CiIssuer
    redis: Redis
    brokers: list[Broker]
    wires: list[Wire]
    sent: list[Sent] = field(default_factory=list)

    @property
    def ports(self) -> list[int]:
        return [broker.port for broker in self.brokers]

    def load(self, clients: int = 4) -> Load:
        """Load on both; each token goes to one of them."""
        load = Load(self.ports, self.issuer.token, clients=clients)
        load.sent = self.sent
        return load

    async def everywhere(self, token: str) -> list[Sent]:
        """Send *token* to every replica at once."""
        sent = await asyncio.gather(*(exchange(port, token) for port in self.ports))
        self.sent += sent
        return list(sent)

    async def in_turn(self, tokens: Iterable[str]) -> list[Sent]:
        """Send *tokens* to one replica and the other in turn."""
        sent = [await exchange(self.ports[n % 2], token) for n, token in enumerate(tokens)]
        self.sent += sent
        return sent

    async def grants_again(self, seconds: float = 15.0) -> list[str]:
        """Wait until every replica grants fresh tokens."""

        async def granting() -> bool:
            sent = await self.in_turn(self.issuer.token() for _ in range(2))
            return len(granted(sent)) == 2

        recovered = await until(granting, seconds) is not None
        return [] if recovered else [f"it does not recover: {summary(self.sent[-6:])}"]

    async def taken_once(self, refused: Sequence[Sent]) -> list[str]:
        """Send tokens that got a 503 again, after their `Retry-After`: each is granted once."""
        await asyncio.sleep(max((each.retry_after_seconds for each in refused), default=0))
        wrong = [
            f"after a 503 the same token got {again.answer}"
            for again in await self.in_turn(each.token for each in refused)
            if again.status != 200
        ]
        return wrong + _all_used(await self.in_turn(each.token for each in refused))

    def broken_promises(self) -> list[str]:
        """The promises of every fault that did not hold."""
        return broken_promises(self.sent, *self.brokers)


@asynccontextmanager
async def _replicas(run: Run, *, lasting: bool) -> AsyncIterator[_Replicas]:
    key = signing_key(run.folder)
    redis = Redis(run.folder / "redis", lasting=lasting)
    async with AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(CiIssuer().serving())
        await stack.enter_async_context(running(redis))
        # An empty Redis counts as one that lost its data; nobody wants to wait for the leeway.
        empty_redis(redis.port)
        wires = [await stack.enter_async_context(Wire(redis.port).up()) for _ in range(2)]
        flags = [
            ("--signing-key", str(key), "--shared-state", f"redis://127.0.0.1:{wire.port}/0")
            for wire in wires
        ]
        brokers = [
            Broker(run.folder / f"replica-{number}", issuer.documents(), *flags[number])
            for number in range(2)
        ]
        for broker in brokers:
            await stack.enter_async_context(running(broker))
        yield _Replicas(issuer, redis, brokers, wires)


async def redis_stopped(run: Run) -> Outcome:
    """
    Redis is stopped, and started again with its data.

    While it is down, every exchange is a 503. Afterwards a token that was granted before is not
    granted again, and a token that got a 503 is granted once.
    """
    outcome = Outcome()
    async with _replicas(run, lasting=True) as two:
        load = two.load()
        for _ in range(run.of(2, 6)):
            await load.for_seconds(0.5)
            known = granted(two.sent)[-5:]
            await asyncio.to_thread(two.redis.stop)
            down = await load.for_seconds(1.0)
            wrong = _all_unavailable(down)
            await start(two.redis)
            wrong += await two.grants_again()
            wrong += _all_used(await two.in_turn(s.token for s in known))
            wrong += await two.taken_once(down[-20:])
            outcome.tried(wrong[:3])
        outcome.judge(two.broken_promises())
        outcome.saw(summary(two.sent))
    return outcome


async def redis_frozen(run: Run) -> Outcome:
    """
    Redis is stopped with SIGSTOP, and then processes the commands that arrived meanwhile.

    Exchanges are a 503 within their time limit, and the late claims are given back: a token that
    got a 503 is granted once.
    """
    outcome = Outcome()
    async with _replicas(run, lasting=False) as two:
        load = two.load(clients=24)
        for _ in range(run.of(1, 5)):
            await load.for_seconds(0.5)
            async with load.running():
                before = len(two.sent)
                two.redis.send(signal.SIGSTOP)
                await asyncio.sleep(3.0)
                for _ in range(100):  # on a busy machine the first 503 comes later
                    if any(sent.status == 503 for sent in two.sent[before:]):
                        break
                    await asyncio.sleep(0.1)
                two.redis.send(signal.SIGCONT)
            late = [sent for sent in two.sent[before:] if sent.status == 503]
            wrong = [f"a 503 took {s.seconds:.1f} s" for s in late if s.seconds > 10]
            wrong += [] if late else ["no 503 came"]
            wrong += await two.grants_again()
            wrong += await two.taken_once(late[-20:])
            outcome.tried(wrong[:3])
        outcome.judge(two.broken_promises())
        outcome.saw(f"{summary(two.sent)}; {quantiles_ms(two.sent)}")
    return outcome


async def redis_restarted_empty(run: Run) -> Outcome:
    """
    Redis is killed and starts again without its data.

    No token is granted twice, at either replica. Tokens issued before are refused, and tokens
    issued after the leeway are granted.
    """
    outcome = Outcome()
    async with _replicas(run, lasting=False) as two:
        load = two.load()
        for _ in range(run.of(2, 5)):
            await load.for_seconds(0.5)
            known = granted(two.sent)[-20:]
            two.issuer.ahead_seconds = 0.0
            unsent = [two.issuer.token() for _ in range(3)]
            await asyncio.to_thread(two.redis.kill)
            await start(two.redis)
            again = [sent for each in known for sent in await two.everywhere(each.token)]
            wrong = [] if known else ["nothing had been granted"]
            wrong += [f"a token was taken twice: {s.request_id}" for s in granted(again)]
            old = await two.in_turn(unsent)
            wrong += [f"a token from before got {s.answer}" for s in granted(old)]
            await asyncio.sleep(_BEYOND_SECONDS)
            two.issuer.ahead_seconds = _AHEAD_SECONDS
            wrong += await two.grants_again()
            outcome.tried(wrong[:3])
        outcome.judge(two.broken_promises())
        outcome.saw(summary(two.sent))
    return outcome


async def redis_slow(run: Run) -> Outcome:
    """
    Redis answers slowly.

    Within the time limit every exchange is granted; beyond it every one is a 503.

    What was too slow for its caller is not lost: the same token is granted once afterwards.
    """
    outcome = Outcome()
    async with _replicas(run, lasting=False) as two:
        load = two.load()
        for _ in range(run.of(1, 4)):
            _delay(two, 0.3)
            slow = await load.for_seconds(1.5)
            wrong = [f"slow: {s.answer}" for s in slow if s.status != 200]
            _delay(two, 3.0)
            late = await load.for_seconds(1.0)
            _delay(two, 0.0)
            wrong += _all_unavailable(late)
            wrong += await two.grants_again()
            wrong += await two.taken_once(late[-20:])
            outcome.tried(wrong[:3])
            outcome.saw(f"300 ms: {quantiles_ms(slow)}")
        outcome.judge(two.broken_promises())
        outcome.saw(summary(two.sent))
    return outcome


async def redis_cut_off(run: Run) -> Outcome:
    """
    The connection to Redis is cut after a claim has arrived there, and before its answer.

    The exchange is a 503, and the same token is granted when it is sent again, once.
    """
    outcome, times = Outcome(), run.of(10, 50)
    async with _replicas(run, lasting=False) as two:
        await two.load().for_seconds(0.3)
        for number in range(times):
            wire = two.wires[number % 2]
            wire.cut_after_requests = 1
            token = two.issuer.token()
            first = await exchange(two.ports[number % 2], token)
            two.sent.append(first)
            wire.cut_after_requests = 0
            wrong = [] if first.status == 503 else [f"it got {first.answer}"]
            await asyncio.sleep(0.6)  # a claim that was cut off is given back by its replica
            again = await two.everywhere(token)
            wrong += [] if len(granted(again)) == 1 else [f"then it got {summary(again)}"]
            outcome.tried(wrong[:1])
        outcome.judge(two.broken_promises())
        outcome.saw(summary(two.sent))
    return outcome


async def replicas_racing(run: Run) -> Outcome:
    """Two replicas get one token at the same moment. Exactly one of them grants it."""
    outcome, first = Outcome(), Counter[int]()
    async with _replicas(run, lasting=False) as two:
        for _ in range(200):
            both = await two.everywhere(two.issuer.token())
            reasons = sorted(sent.answer for sent in both)
            right = reasons == ["200", "400 already_used"]
            outcome.tried([] if right else [f"one token got {reasons}"])
            first.update(place for place, sent in enumerate(both) if sent.status == 200)
        outcome.judge(two.broken_promises())
    outcome.saw(f"{first[0]} won by the one, {first[1]} by the other")
    return outcome


def _delay(two: _Replicas, seconds: float) -> None:
    for wire in two.wires:
        wire.delay_seconds = seconds


def _all_unavailable(sent: Sequence[Sent]) -> list[str]:
    wrong = [f"got {each.answer}" for each in sent if each.reason != "state_unavailable"]
    return wrong if sent else ["nothing was sent"]


def _all_used(sent: Sequence[Sent]) -> list[str]:
    return [f"a replay got {s.answer}" for s in sent if s.reason != "already_used"]
