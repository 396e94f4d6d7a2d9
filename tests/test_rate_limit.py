"""The rate limit: each address has a budget of failed exchanges, and working CI never meets it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_network

import httpx2
import pytest
from starlette.types import Message, Scope

from federation.errors import Reason, Refusal
from federation.gateway.refusals import TooSlow
from federation.gateway.request import RequestBody
from federation.web.rate_limit import Failures, Revocations, caller_of
from tests.harness.broker import BrokenStore, InProcess, form, logged, refusal
from tests.harness.clock import Clock

A, B = "192.0.2.1", "192.0.2.2"
FAULTS_OF_THE_CALLER = set(Reason) - {
    Reason.KEYS_UNAVAILABLE,
    Reason.STATE_UNAVAILABLE,
    Reason.DOCUMENTS_UNAVAILABLE,
    Reason.AUDIT_UNAVAILABLE,
    Reason.TOO_MANY_FAILURES,
    Reason.TOO_MANY_REVOCATIONS,
    Reason.TOO_MANY_EXCHANGES,
    Reason.SERVER_ERROR,
}


def budget(a_minute: int = 3, clock: Clock | None = None, addresses: int = 10) -> Failures:
    return Failures(a_minute, clock or Clock(), addresses=addresses)


def fail(failures: Failures, times: int, address: str = A) -> None:
    for _ in range(times):
        failures.count(address, Reason.BAD_SIGNATURE)


def wait_of(failures: Failures, address: str = A) -> int:
    """The seconds that *address* must wait, 0 if it may try."""
    try:
        failures.check(address)
    except Refusal as refused:
        return refused.retry_after_seconds
    return 0


class TestBudget:
    def test_the_limit_applies_after_the_last_allowed_failure(self) -> None:
        failures = budget(3)
        fail(failures, 2)
        assert not wait_of(failures)
        fail(failures, 1)
        assert wait_of(failures)

    def test_an_address_may_try_again_after_its_wait_and_no_sooner(self) -> None:
        clock = Clock()
        failures = budget(3, clock)
        fail(failures, 3)
        told = wait_of(failures)
        assert told == 20
        clock.advance(told - 1)
        assert wait_of(failures) == 1
        clock.advance(1)
        assert not wait_of(failures)

    def test_a_minute_gives_the_whole_budget_back_and_never_more(self) -> None:
        clock = Clock()
        failures = budget(3, clock)
        fail(failures, 3)
        clock.advance(3600)
        fail(failures, 2)
        assert not wait_of(failures)
        fail(failures, 1)
        assert wait_of(failures)

    def test_failures_as_fast_as_the_budget_allows_never_stop(self) -> None:
        clock = Clock()
        failures = budget(60, clock)
        for _ in range(500):
            assert not wait_of(failures)
            fail(failures, 1)
            clock.advance(1)

    def test_another_address_has_its_own(self) -> None:
        failures = budget(1)
        fail(failures, 1, A)
        assert wait_of(failures, A)
        assert not wait_of(failures, B)

    def test_0_is_no_limit_and_remembers_no_address(self) -> None:
        failures = budget(0)
        fail(failures, 1000)
        assert not wait_of(failures)
        assert len(failures) == 0

    @pytest.mark.parametrize("reason", Reason)
    def test_only_faults_of_the_caller_count(self, reason: Reason) -> None:
        failures = budget(1)
        failures.count(A, reason)
        assert bool(wait_of(failures)) == (reason in FAULTS_OF_THE_CALLER)

    def test_memory_is_bounded_and_the_oldest_failure_is_dropped_first(self) -> None:
        failures = budget(1, addresses=10)
        for n in range(100):
            fail(failures, 1, f"192.0.2.{n}")
        assert len(failures) == 10
        assert wait_of(failures, "192.0.2.99")
        assert not wait_of(failures, "192.0.2.0")

    def test_a_new_failure_keeps_an_address_in_memory(self) -> None:
        failures = budget(1, addresses=10)
        fail(failures, 1, A)
        for n in range(100, 109):
            fail(failures, 1, f"192.0.2.{n}")
        fail(failures, 1, A)
        fail(failures, 1, "192.0.2.200")
        assert wait_of(failures, A)


class TestDebt:
    def test_a_burst_beyond_the_budget_owes_at_most_a_minute(self) -> None:
        clock = Clock()
        failures = budget(3, clock)
        fail(failures, 2000)
        assert wait_of(failures) == 60
        clock.advance(60)
        assert not wait_of(failures)
        fail(failures, 1)
        assert wait_of(failures) == 20, "the bucket has one failure after that minute, not all"


class TestRevocations:
    @staticmethod
    def wait_of(revocations: Revocations, address: str = A, subject: str = "s") -> int:
        try:
            revocations.take(address, subject)
        except Refusal as refused:
            return refused.retry_after_seconds
        return 0

    def test_a_subject_and_an_address_have_a_budget_each(self) -> None:
        revocations = Revocations(Clock(), a_minute=3)
        assert [self.wait_of(revocations) for _ in range(4)] == [0, 0, 0, 20]
        assert self.wait_of(revocations, B) == 20, "the subject"
        assert self.wait_of(revocations, A, "t") == 20, "the address"
        assert self.wait_of(revocations, B, "t") == 0

    def test_what_is_refused_costs_nothing(self) -> None:
        clock = Clock()
        revocations = Revocations(clock, a_minute=3)
        assert [self.wait_of(revocations) for _ in range(50)][-1] == 20
        clock.advance(20)
        assert self.wait_of(revocations) == 0

    def test_where_all_share_an_address_only_subjects_count(self) -> None:
        revocations = Revocations(Clock(), by_address=False, a_minute=1)
        assert [self.wait_of(revocations, A, name) for name in "abc"] == [0, 0, 0]
        assert self.wait_of(revocations, B, "a") == 60


def request(peer: str | None, *forwarded: str) -> Scope:
    headers = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    client = None if peer is None else (peer, 1)
    return {"type": "http", "client": client, "headers": headers}


PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


class TestAddress:
    @pytest.mark.parametrize(
        "name",
        [b"forwarded", b"x-real-ip", b"cf-connecting-ip", b"true-client-ip", b"x_forwarded_for"],
    )
    def test_no_other_header_names_the_caller(self, name: bytes) -> None:
        """A proxy that writes the one header passes the others on as the caller wrote them."""
        scope = request("10.0.0.1", "203.0.113.9")
        value = b"for=198.51.100.7" if name == b"forwarded" else b"198.51.100.7"
        scope["headers"] = [(name, value), *scope["headers"], (name, value)]
        assert caller_of(scope, PROXIES) == "203.0.113.9"
        scope["headers"] = [(name, value)]
        assert caller_of(scope, PROXIES) == "10.0.0.1"

    @pytest.mark.parametrize("forwarded", [(), ("203.0.113.9",), ("203.0.113.9, 10.0.0.1",)])
    def test_x_forwarded_for_is_ignored_by_default(self, forwarded: tuple[str, ...]) -> None:
        assert caller_of(request("10.0.0.1", *forwarded)) == "10.0.0.1"

    @pytest.mark.parametrize(
        ("peer", "forwarded", "caller"),
        [
            pytest.param("10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="one proxy"),
            pytest.param("10.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9", id="two proxies"),
            pytest.param("10.0.0.1", ["203.0.113.9", "10.0.0.2"], "203.0.113.9", id="two lines"),
            pytest.param("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9", id="made up before"),
            pytest.param("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9", id="made up line"),
            pytest.param("10.0.0.1", ["1.1.1.1,x, 10.0.0.2"], "10.0.0.2", id="nonsense before"),
            pytest.param("10.0.0.1", ["1.1.1.1,"], "10.0.0.1", id="an empty end"),
            pytest.param("10.0.0.1", [], "10.0.0.1", id="a proxy that says nothing"),
            pytest.param("10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3", id="all are proxies"),
            pytest.param("203.0.113.1", ["1.1.1.1"], "203.0.113.1", id="not a proxy"),
            pytest.param("fd00::1", ["203.0.113.9"], "203.0.113.9", id="IPv6 proxy"),
            pytest.param("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9", id="IPv4 in IPv6"),
            pytest.param("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9", id="told as IPv6"),
            pytest.param("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9", id="with its port"),
            pytest.param("10.0.0.1", ["[2001:db8::7]:443"], "2001:db8::/64", id="IPv6 and port"),
            pytest.param("2001:db8:0:0:1:2:3:4", [], "2001:db8::/64", id="a /64 is one"),
            pytest.param("fe80::1%eth0", [], "fe80::/64", id="with its zone"),
            pytest.param(None, ["203.0.113.9"], "unknown", id="no peer"),
            pytest.param("testclient", ["203.0.113.9"], "unknown", id="not an address"),
        ],
    )
    def test_the_address_is_the_one_that_the_last_trusted_proxy_saw(
        self, peer: str | None, forwarded: list[str], caller: str
    ) -> None:
        assert caller_of(request(peer, *forwarded), PROXIES) == caller

    def test_a_header_without_end_is_read_from_its_end(self) -> None:
        endless = ",".join(["10.0.0.9"] * 10_000)
        assert caller_of(request("10.0.0.1", f"203.0.113.9,{endless}"), PROXIES) == "10.0.0.9"


def fails(broker: InProcess, headers: Mapping[str, str] | None = None) -> httpx2.Response:
    return broker.post("/oauth/token", form("a.b.c"), headers=headers or {})


class TestExchange:
    def test_over_the_limit_no_exchange_is_tried(self) -> None:
        broker = InProcess(failed_exchanges=3)
        assert [refusal(fails(broker))[0] for _ in range(4)] == [400, 400, 400, 429]
        answer = broker.exchange()
        assert refusal(answer) == (429, "too_many_failures")
        assert answer.json()["error"] == "temporarily_unavailable"
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        assert answer.headers["cache-control"] == "no-store"

    def test_a_limited_exchange_leaves_a_line_in_the_log_and_no_event(self) -> None:
        broker = InProcess(failed_exchanges=1)
        fails(broker)
        with logged() as log:
            answer = fails(broker)
        assert broker.journal.events == []
        (line,) = map(json.loads, log.getvalue().splitlines())
        assert (line["event"], line["reason"]) == ("exchange refused", "too_many_failures")
        assert line["request_id"] == answer.json()["request_id"]
        assert line["evidence"]["address"] == "127.0.0.1"

    def test_successful_exchanges_are_not_counted(self) -> None:
        broker = InProcess(failed_exchanges=1)
        assert [broker.exchange().status_code for _ in range(20)] == [200] * 20

    def test_a_token_that_comes_twice_is_a_failure(self) -> None:
        broker = InProcess(failed_exchanges=1)
        token = broker.job()
        said = [broker.exchange(token).json().get("reason") for _ in range(3)]
        assert said == [None, "already_used", "too_many_failures"]

    def test_unavailability_of_the_broker_is_not_counted(self) -> None:
        broker = InProcess(failed_exchanges=1, state=BrokenStore)
        assert {broker.exchange().status_code for _ in range(5)} == {503}

    def test_unexpected_exceptions_are_not_counted(self) -> None:
        broker = InProcess(failed_exchanges=1)
        broker.app.state.broker.source = None
        assert {broker.exchange().status_code for _ in range(5)} == {500}

    def test_callers_behind_a_trusted_proxy_have_limits_of_their_own(self) -> None:
        broker = InProcess(failed_exchanges=1, trusted_proxies="127.0.0.0/8")
        statuses = [
            fails(broker, {"X-Forwarded-For": f"192.0.2.{n}"}).status_code for n in (1, 1, 2, 2)
        ]
        assert statuses == [400, 429, 400, 429]

    def test_a_caller_cannot_choose_its_address_if_no_proxy_is_trusted(self) -> None:
        broker = InProcess(failed_exchanges=1)
        statuses = [
            fails(broker, {"X-Forwarded-For": f"192.0.2.{n}"}).status_code for n in (1, 2, 3)
        ]
        assert statuses == [400, 429, 429]

    def test_other_endpoints_are_not_limited(self) -> None:
        broker = InProcess(failed_exchanges=1)
        token = broker.access_token()
        fails(broker)
        assert refusal(fails(broker))[0] == 429
        assert broker.post("/oauth/revoke", {"token": token}).status_code == 200
        assert broker.ask("GET", "/livez").status_code == 200


class TestSlowBodies:
    """Bodies of gateway requests that arrive too slowly."""

    @staticmethod
    def body(*messages: Message) -> RequestBody:
        waiting = list(messages)

        async def receive() -> Message:
            if not waiting:
                await asyncio.Event().wait()
            return waiting.pop(0)

        return RequestBody(receive, whole_seconds=0.05, pause_seconds=0.05)

    def test_a_body_that_is_read_whole_has_a_deadline(self) -> None:
        begun = self.body({"type": "http.request", "body": b"{", "more_body": True})
        with pytest.raises(TooSlow):
            asyncio.run(begun.read(10))

    def test_a_body_that_dribbles_has_the_same_deadline(self) -> None:
        async def dribble() -> Message:
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"x", "more_body": True}

        with pytest.raises(TooSlow):
            asyncio.run(RequestBody(dribble, whole_seconds=0.1, pause_seconds=10).read(10_000))

    def test_a_streamed_body_may_dribble_but_not_stop(self) -> None:
        came = 0

        async def dribble() -> Message:
            nonlocal came
            came += 1
            await asyncio.sleep(0.01 if came <= 20 else 60)
            return {"type": "http.request", "body": b"x", "more_body": True}

        passed_on = []

        async def read(chunks: AsyncIterator[bytes]) -> None:
            async for chunk in chunks:
                passed_on.append(chunk)  # noqa: PERF401  what came before the end counts

        slow = RequestBody(dribble, whole_seconds=0.01, pause_seconds=0.1)
        with pytest.raises(TooSlow):
            asyncio.run(read(slow.stream()))
        assert len(passed_on) == 20

    def test_a_slow_body_is_408(self) -> None:
        assert TooSlow.status == 408


def test_the_limit_is_on_by_default() -> None:
    broker = InProcess()
    statuses = [fails(broker).status_code for _ in range(62)]
    assert statuses.count(400) >= 60
    assert statuses[-1] == 429
