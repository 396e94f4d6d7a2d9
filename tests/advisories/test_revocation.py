"""Revocation as a weapon: against the store, against other replicas, and what it must still end."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from federation.errors import Reason, Refusal
from federation.state import ONE_BY_ONE
from federation.state.redis import RedisStore
from federation.tokens.mint import FUNCTION_TOKEN_TYPE
from federation.web.rate_limit import Revocations
from tests.harness import documents
from tests.harness.broker import BrokenStore, InProcess, form, logged, refusal, said
from tests.harness.builders import GENERIC, GITHUB, NOW
from tests.harness.clock import Clock
from tests.harness.gateway import Front
from tests.harness.redis import ask_redis, empty_redis, redis_server

FIGLET = "/function/figlet.dev"


@pytest.fixture
def broker() -> InProcess:
    return InProcess()


def function_token(broker: InProcess, own: str) -> str:
    """A function token for the access token *own*."""
    return broker.access_token(own, scope="function", audience="dev:env")


def revoke(broker: InProcess, token: str, **request: Any) -> httpx2.Response:
    return broker.post("/oauth/revoke", {"token": token}, **request)


def revocations(broker: InProcess) -> list[Any]:
    """The audit events of revocations."""
    return [event for event in broker.journal.events if event.path == "/oauth/revoke"]


class Counting(InProcess):
    """A broker that counts the entries that revocations add to its store."""

    def entries(self) -> int:
        return len(self.state._revoked.items())  # type: ignore[attr-defined]  # a MemoryStore


class TestRoom:
    def test_one_job_takes_room_for_few_revocations_however_many_tokens_it_makes(self) -> None:
        broker = Counting()
        own = broker.access_token()
        for _ in range(ONE_BY_ONE + 1):
            assert revoke(broker, function_token(broker, own)).status_code == 200
        assert broker.entries() == ONE_BY_ONE + 1
        assert refusal(broker.exchange(own, scope="function")) == (400, "revoked")

    def test_all_tokens_that_were_not_revoked_one_by_one_end_with_the_access_token(self) -> None:
        broker = Counting()
        own = broker.access_token()
        tokens = [function_token(broker, own) for _ in range(ONE_BY_ONE + 50)]
        for token in tokens:
            assert revoke(broker, token).status_code == 200
        assert broker.entries() == ONE_BY_ONE + 1
        events = revocations(broker)
        assert len(events) == ONE_BY_ONE + 1, "the others had ended by then"
        assert "access token" in events[-1].custom_message

    def test_a_token_that_is_revoked_again_costs_nothing(self) -> None:
        broker = Counting()
        own = broker.access_token()
        assert {revoke(broker, own).status_code for _ in range(400)} == {200}
        assert broker.entries() == 1
        assert len(revocations(broker)) == 1

    def test_a_token_that_nobody_signed_costs_nothing_and_is_logged(self) -> None:
        broker = Counting()
        with logged() as log:
            assert {revoke(broker, broker.job()).status_code for _ in range(400)} == {200}
        assert broker.entries() == 0
        assert revocations(broker) == [], "strangers displace no events"
        assert "nothing to revoke" in log.getvalue()


class TestEvents:
    def test_a_revocation_makes_one_event_that_says_who(self, broker: InProcess) -> None:
        own = broker.access_token()
        granted = broker.journal.events[-1]
        answer = revoke(broker, own)
        (event,) = revocations(broker)
        assert (event.response_code, event.reason, event.method) == (200, None, "POST")
        assert event.actor == granted.actor
        assert (event.roles, event.policies) == (granted.roles, granted.policies)
        assert event.request_id == answer.headers["x-request-id"]
        assert len(event.token_sha256) == 64

    def test_one_that_the_store_cannot_keep_makes_one_too(self) -> None:
        class Full(BrokenStore):
            async def spend(self, *_args: Any) -> bool:
                return True

            async def revoked(self, _jti: str) -> bool:
                return False

        broker = InProcess(state=Full)
        assert refusal(revoke(broker, broker.access_token())) == (503, "state_unavailable")
        (event,) = revocations(broker)
        assert (event.response_code, event.reason) == (503, Reason.STATE_UNAVAILABLE)

    def test_a_journal_that_fails_keeps_nobody_from_ending_a_token(self, broker: InProcess) -> None:
        own = broker.access_token()
        broker.journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
        assert refusal(revoke(broker, own)) == (503, "audit_unavailable")
        broker.journal.failure = broker.journal.failed = None
        assert refusal(broker.exchange(own, scope="function")) == (400, "revoked")


class TestBudget:
    @staticmethod
    def budget_of(broker: InProcess) -> Revocations:
        """The budget of *broker*, with a clock that stands: a slow machine must not refill it."""
        (route,) = (r for r in broker.app.routes if getattr(r, "path", "") == "/oauth/revoke")
        budget: Revocations = route.endpoint.budget  # type: ignore[attr-defined]  # a Route has it
        budget._addresses._clock = budget._subjects._clock = Clock()
        return budget

    def used_up(self, broker: InProcess, address: str, subject: str) -> None:
        """Use up the budget of *address* and *subject*."""
        budget = self.budget_of(broker)
        with suppress(Refusal):
            while True:
                budget.take(address, subject)

    def test_an_address_cannot_revoke_without_end(self, broker: InProcess) -> None:
        own = broker.access_token()
        self.used_up(broker, "127.0.0.1", "fed:somebody")
        answer = revoke(broker, own)
        assert refusal(answer) == (429, "too_many_revocations")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert broker.exchange(own, scope="function").status_code == 200
        assert revocations(broker) == [], "or whoever is refused could fill the journal"

    def test_a_subject_cannot_either_from_many_addresses(self, broker: InProcess) -> None:
        own = broker.access_token()
        self.used_up(broker, "192.0.2.7", f"{said(own)['fed:iss']} {said(own)['sub']}")
        assert refusal(revoke(broker, own)) == (429, "too_many_revocations")

    def test_others_are_not_concerned(self, broker: InProcess) -> None:
        own = broker.access_token()
        self.used_up(broker, "192.0.2.7", "fed:somebody")
        assert revoke(broker, own).status_code == 200

    def test_another_issuer_cannot_use_up_what_is_left_for_a_subject_by_its_name(self) -> None:
        broker = InProcess(_documents_of_two())
        claims = broker.claims()
        hostile = {**broker.claims("keycloak-user"), "sub": claims["sub"]}
        victim = broker.access_token(broker.github.token(claims))
        mine = function_token(broker, victim)
        own = broker.access_token(broker.idp.token(hostile))
        assert said(own)["sub"] == said(victim)["sub"]
        self.used_up(broker, "192.0.2.7", f"{said(own)['fed:iss']} {said(own)['sub']}")
        assert revoke(broker, own).status_code == 429
        assert revoke(broker, mine).status_code == 200
        assert revoke(broker, victim).status_code == 200

    def test_what_costs_nothing_is_not_refused(self, broker: InProcess) -> None:
        own = broker.access_token()
        assert revoke(broker, own).status_code == 200
        self.used_up(broker, "127.0.0.1", "fed:somebody")
        assert [revoke(broker, token).status_code for token in (own, "x", broker.job())] == [
            200
        ] * 3


def _documents_of_two() -> str:
    """Documents by which every job of one owner, and every user of another issuer, may call."""
    calls = {"action": ["Function:Invoke"], "resource": ["dev:env"]}
    of_users = {
        "StringEqual": {"jwt:iss": [GENERIC]},
        "StringLike": {"jwt:sub": ["repo:octo-org/*"]},
    }
    return documents.as_text(
        documents.issuer("github", GITHUB),
        documents.issuer("idp", GENERIC, provider="generic"),
        documents.policy("call", calls),
        documents.role("jobs", GITHUB, policy="call"),
        documents.document("Role", "users", {"policy": ["call"], "condition": of_users}),
    )


class TestFunctionTokens:
    def test_they_name_the_access_token_that_they_came_from(self, broker: InProcess) -> None:
        own = broker.access_token()
        assert said(function_token(broker, own))["fed:parent"] == said(own)["jti"]

    def test_one_for_a_ci_token_has_no_parent(self, broker: InProcess) -> None:
        # The access token between the two was never given to anybody.
        assert "fed:parent" not in said(broker.access_token(scope="function"))

    def test_they_end_with_it_at_the_gateway(self, tmp_path: Path) -> None:
        front = Front(tmp_path, functions="authorize")
        parent = front.function_token(["dev:figlet"], **{"fed:parent": "root"})
        other = front.function_token(["dev:figlet"], **{"fed:parent": "another"}, jti="other")
        assert front.call("POST", FIGLET, parent, content=b"x").status_code == 200
        assert revoke(front, front.signed({**front.said(), "jti": "root"})).status_code == 200
        assert front.call("POST", FIGLET, parent, content=b"x").status_code == 401
        assert front.call("POST", FIGLET, other, content=b"x").status_code == 200

    def test_one_that_was_revoked_leaves_its_parent_and_its_siblings(self, tmp_path: Path) -> None:
        front = Front(tmp_path, functions="authorize")
        one, two = (
            front.function_token(["dev:figlet"], **{"fed:parent": "root"}, jti=jti)
            for jti in ("one", "two")
        )
        assert revoke(front, one).status_code == 200
        assert front.call("POST", FIGLET, one, content=b"x").status_code == 401
        assert front.call("POST", FIGLET, two, content=b"x").status_code == 200

    @pytest.mark.parametrize("parent", [5, None, ["root"], {"a": 1}])
    def test_a_parent_that_is_no_text_is_refused(self, tmp_path: Path, parent: object) -> None:
        front = Front(tmp_path, functions="authorize")
        changes: dict[str, Any] = {"fed:parent": parent}
        token = front.function_token(["dev:figlet"], **changes)
        assert front.call("POST", FIGLET, token, content=b"x").status_code == 401

    def test_an_issuer_cannot_give_an_access_token_a_parent(self, broker: InProcess) -> None:
        own = broker.access_token(broker.job(**{"fed:parent": "of-somebody-else"}))
        assert "fed:parent" not in said(own)

    def test_a_claim_of_that_name_revokes_no_other_token(self, broker: InProcess) -> None:
        # Only the broker's signature makes a parent.
        victim = broker.access_token()
        forged = broker.github.token(
            {**said(victim), "fed:parent": said(victim)["jti"], "jti": "x"},
            header={"typ": FUNCTION_TOKEN_TYPE},
        )
        for _ in range(ONE_BY_ONE + 2):
            assert revoke(broker, forged).status_code == 200
        assert broker.exchange(victim, scope="function").status_code == 200


class TestReplicas:
    """Replicas that share a Redis."""

    @pytest.fixture(scope="class", name="port")
    @classmethod
    def _port(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
        with redis_server(tmp_path_factory.mktemp("redis")) as port:
            yield port

    @pytest.fixture(autouse=True)
    def _empty(self, port: int) -> None:
        empty_redis(port)

    @staticmethod
    def store(port: int, folder: Path) -> RedisStore:
        return RedisStore(f"redis://127.0.0.1:{port}/0", Clock(NOW), folder / "epoch")

    def test_revocations_of_one_job_cost_other_replicas_one_reading(
        self, port: int, tmp_path: Path
    ) -> None:
        async def story() -> None:
            mine, other = self.store(port, tmp_path / "1"), self.store(port, tmp_path / "2")
            running = asyncio.create_task(other.run())
            for number in range(100):
                await asyncio.gather(*(mine.revoke(f"{number}.{n}", NOW + 900) for n in range(50)))
            await asyncio.sleep(0.6)
            assert await other.revoked("99.49")
            before = _bytes_sent(port)
            await asyncio.sleep(1.5)
            assert _bytes_sent(port) - before < 30_000, "5,000 entries are not read again"
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await mine.aclose()
            await other.aclose()

        asyncio.run(asyncio.wait_for(story(), 60))

    @pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
    def test_no_token_is_spent_where_redis_may_evict_the_record_of_it(
        self, port: int, tmp_path: Path, policy: str
    ) -> None:
        ask_redis(port, f"CONFIG SET maxmemory-policy {policy}")

        async def story() -> None:
            store = self.store(port, tmp_path)
            with pytest.raises(Refusal) as caught:
                await store.spend("a", NOW + 300, NOW)
            assert policy in str(caught.value.evidence)
            await store.aclose()

        try:
            asyncio.run(story())
        finally:
            ask_redis(port, "CONFIG SET maxmemory-policy noeviction")

    def test_a_new_pod_that_is_the_first_to_reach_an_emptied_redis_takes_no_old_token(
        self, port: int, tmp_path: Path
    ) -> None:
        async def story() -> None:
            old, new = self.store(port, tmp_path / "1"), self.store(port, tmp_path / "2")
            assert await old.spend("a", NOW + 300, NOW)
            ask_redis(port, "FLUSHALL")
            with pytest.raises(Refusal):
                await new.spend("a", NOW + 300, NOW)
            await old.aclose()
            await new.aclose()

        asyncio.run(story())

    @pytest.mark.parametrize("command", ["eval", "set"])
    def test_a_broker_whose_user_may_not_claim_is_not_ready(
        self, port: int, tmp_path: Path, command: str
    ) -> None:
        # PING succeeds, and without SET the revoked tokens can be read; no exchange is answered.
        ask_redis(port, f"ACL SETUSER broker on >p ~* +@all -{command}")
        url = f"redis://broker:p@127.0.0.1:{port}/0"
        broker = InProcess(state=lambda clock: RedisStore(url, clock, tmp_path / "epoch"))

        async def story(client: httpx2.AsyncClient) -> httpx2.Response:
            try:
                return await client.get("http://localhost:8080/readyz")
            finally:
                await broker.state.aclose()

        try:
            answer = broker.tell(story)
        finally:
            ask_redis(port, "ACL DELUSER broker")
        assert answer.status_code == 503
        (problem,) = answer.json()["unavailable"]
        assert command in problem.lower()


def _bytes_sent(port: int) -> int:
    found = re.search(r"total_net_output_bytes:(\d+)", ask_redis(port, "INFO stats"))
    assert found
    return int(found[1])


class TestFailures:
    def test_requests_that_were_held_back_are_counted_when_their_bodies_arrive(self) -> None:
        # A caller opens many requests, and sends the bodies when all have passed the first check.
        broker = InProcess(failed_exchanges=3)
        bad = broker.job(aud="other")

        async def story(client: httpx2.AsyncClient) -> list[str]:
            opened, send = asyncio.Event(), asyncio.Semaphore(0)

            async def body() -> Any:
                opened.set()
                async with send:
                    yield urlencode(form(bad)).encode()

            async def one() -> str:
                headers = {"content-type": "application/x-www-form-urlencoded"}
                answer = await client.post("/oauth/token", content=body(), headers=headers)
                return str(answer.json()["reason"])

            held = [asyncio.create_task(one()) for _ in range(20)]
            await opened.wait()
            await asyncio.sleep(0.05)
            send.release()
            return list(await asyncio.gather(*held))

        reasons = Counter(broker.tell(story))
        # Those that are at work when the third fails are still answered.
        assert reasons["too_many_failures"] >= 10, reasons

    def test_a_burst_of_failures_owes_at_most_a_minute(self) -> None:
        broker = InProcess(failed_exchanges=3)

        async def story(client: httpx2.AsyncClient) -> int:
            asked = (
                client.post("/oauth/token", data=form(broker.job(aud="other"))) for _ in range(50)
            )
            await asyncio.gather(*asked)
            answer = await client.post("/oauth/token", data=form(broker.job()))
            return int(answer.headers["retry-after"])

        assert broker.tell(story) <= 60


def test_a_check_of_readiness_costs_one_claim_however_often_strangers_ask(
    broker: InProcess,
) -> None:
    checks = 0
    check = broker.state.check

    async def counted() -> str:
        nonlocal checks
        checks += 1
        return await check()

    broker.app.state.broker.state.check = counted

    async def story(client: httpx2.AsyncClient) -> float:
        began = time.monotonic()
        for _ in range(10):
            await asyncio.gather(*(client.get("http://localhost:8080/readyz") for _ in range(10)))
        return time.monotonic() - began

    seconds = broker.tell(story)
    assert checks <= 1 + seconds / 0.5
