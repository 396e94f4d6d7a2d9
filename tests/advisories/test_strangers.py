"""
Attacks by people without a valid token on the audit trail, the log and the budgets.

Whatever they send, and however often, they displace nobody's events, stop nobody's requests, and
no answer of theirs costs more than a bounded line.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from federation.audit.event import Actor, Event, Trail
from federation.errors import Reason, Refusal
from federation.jose.strict_json import dumps_ascii
from federation.tokens.mint import ACCESS_TOKEN_TYPE, sign
from federation.tokens.signing_keys import SigningKey
from federation.web.rate_limit import RepeatedExchanges
from tests.harness.broker import DOCUMENTS, InProcess, logged, refusal
from tests.harness.clock import Clock
from tests.harness.gateway import Front, listening

FIELD_BYTES = 1024
LINE_BYTES = 8 * 1024
DEPLOYMENT = {"service": "figlet", "image": "figlet:2", "namespace": "dev"}


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


class TestFields:
    """No field of an event is longer than 1 KiB, as JSON in ASCII."""

    @pytest.mark.parametrize(
        "text",
        ["x" * 60_000, "é" * 20_000, "\U0001f680" * 9000, '"' * 5000, "\x00" * 900, "eyJ" * 9000],
        ids=["long", "accents", "rockets", "quotes", "control characters", "almost tokens"],
    )
    def test_every_field_is_cut(self, text: str) -> None:
        event = hostile(text)
        for name, value in event.as_json().items():
            values = value.values() if isinstance(value, dict) else [value]
            assert all(len(dumps_ascii(each)) <= FIELD_BYTES for each in values), name

    @pytest.mark.parametrize("length", range(1010, 1040))
    def test_what_fits_is_kept_whole(self, length: int) -> None:
        path = "/" + "x" * (length - 3)
        cut = Trail("r", "GET", path, 1.0).event(200).path
        assert (cut == path) == (length <= FIELD_BYTES)
        assert len(dumps_ascii(cut)) == min(length, FIELD_BYTES)

    def test_a_list_that_is_cut_says_how_much_is_missing(self) -> None:
        trail = Trail("r", "POST", "/", 1.0)
        trail.policies = tuple(f"policy-{n:04}" for n in range(500))
        kept = trail.event(200).policies
        assert kept[:2] == ("policy-0000", "policy-0001")
        assert kept[-1] == f"(and {500 - len(kept) + 1} more)"

    def test_a_token_is_not_made_unrecognisable_by_a_cut(self) -> None:
        token = f"eyJhbGciOiJFUzI1NiJ9.{'p' * 300}.{'s' * 80}"
        for start in range(900, 1020, 7):
            event = Trail("r", "GET", f"/{'x' * start}{token}", 1.0).event(200)
            assert "eyJ" not in event.path

    def test_the_evidence_in_the_log_is_bounded_too(self) -> None:
        evidence = hostile("x" * 60_000).evidence
        assert len(dumps_ascii(evidence)) <= 17 * 1024


def hostile(text: str) -> Event:
    """An event of which every part that a caller can write is *text*."""

    trail = Trail("r", text, f"/{text}", 1.0, actor=Actor(text, text, text))
    trail.actions = trail.roles = trail.policies = (text,) * 50
    trail.namespace = text
    nested = {text: {text: [text] * 50}, "b": [{text[:n]: text} for n in range(60)]}
    trail.refused(Refusal(Reason.NO_ROLE_ADMITS, text, evidence=nested))
    return trail.event(400)


class TestExchange:
    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"iss": "https://unknown.example.com"}, id="unknown issuer"),
            pytest.param({"aud": "https://elsewhere.example.com"}, id="for another server"),
            pytest.param({"aud": "https://elsewhere.example.com", "exp": 1.0}, id="and expired"),
            pytest.param({"sub": None}, id="no subject"),
            pytest.param({"events": {"logout": {}}}, id="a logout token"),
        ],
    )
    def test_a_token_that_is_not_for_us_makes_no_event(self, changes: dict[str, Any]) -> None:
        broker = InProcess()
        with logged() as log:
            answer = broker.exchange(broker.job(**changes))
        assert answer.status_code == 400
        one_bounded_line(log.getvalue(), "exchange refused", answer.json()["request_id"])
        assert broker.journal.events == []

    @pytest.mark.parametrize("token", ["a.b.c", "x" * 16_000, "eyJ" + "A" * 15_000, "é" * 8000])
    def test_nor_does_text_that_is_no_token(self, token: str) -> None:
        broker = InProcess()
        with logged() as log:
            answer = broker.exchange(token, role=["x" * 900] * 20)
        one_bounded_line(log.getvalue(), "exchange refused", answer.json()["request_id"])
        assert broker.journal.events == []

    def test_nor_does_a_signature_of_somebody_else(self) -> None:
        broker = InProcess()
        head, _, signature = broker.job().rpartition(".")
        assert refusal(broker.exchange(f"{head}.{signature[4:8]}{signature[4:]}"))[1] == (
            "bad_signature"
        )
        assert broker.journal.events == []

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            pytest.param({"repository": "mallory/x", "repository_owner_id": "666",
                          "sub": "repo:mallory/x:ref:refs/heads/main"}, "no_role_admits",
                         id="no Role admits it"),
            pytest.param({"exp": 1_000_000_000, "iat": 999_999_000}, "expired", id="expired"),
        ],
    )  # fmt: skip
    def test_a_genuine_token_that_no_role_admits_makes_one_that_is_owed_to_nobody(
        self, changes: dict[str, Any], reason: str
    ) -> None:
        broker = InProcess()
        assert refusal(broker.exchange(broker.job(**changes))) == (400, reason)
        (event,) = broker.journal.events
        assert event.actor is not None
        assert not event.owed

    def test_a_token_that_was_used_before_makes_one_that_is_owed(self) -> None:
        broker = InProcess()
        token = broker.job()
        broker.exchange(token)
        assert refusal(broker.exchange(token)) == (400, "already_used")
        assert [event.owed for event in broker.journal.events] == [True, True]

    def test_a_journal_that_fails_does_not_concern_a_request_without_a_good_token(self) -> None:
        broker = InProcess()
        broker.journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
        assert refusal(broker.exchange("a.b.c")) == (400, "malformed_token")


def one_bounded_line(log: str, event: str, request_id: str) -> None:
    (line,) = log.splitlines()
    assert len(line) <= LINE_BYTES
    assert json.loads(line)["event"] == event
    assert json.loads(line)["request_id"] == request_id


class TestRepeatedExchanges:
    def test_a_token_that_may_be_taken_often_cannot_be_without_end(self) -> None:
        broker = InProcess(DOCUMENTS.replace("tokenExpiry: 30m", "subjectTokenUse: many"))
        broker.app.state.broker.limit_repeats = RepeatedExchanges(Clock(), a_minute=3).take
        token = broker.job()
        answers = [broker.exchange(token).status_code for _ in range(5)]
        assert answers == [200, 200, 200, 429, 429]
        assert [event.owed for event in broker.journal.events] == [True] * 3 + [False] * 2
        assert broker.exchange().status_code == 200

    def test_a_job_cannot_trade_its_access_token_without_end(self) -> None:
        broker = InProcess()
        broker.app.state.broker.limit_repeats = RepeatedExchanges(Clock(), a_minute=3).take
        token = broker.access_token()
        before = len(broker.journal.events)
        answers = [broker.exchange(token, scope="function") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert refusal(answers[-1])[1] == "too_many_exchanges"
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
        assert len(broker.journal.events) - before == 3, "what is refused makes no event"
        other = broker.access_token()
        assert broker.exchange(other, scope="function").status_code == 200
        assert refusal(broker.exchange("a.b.c"))[1] == "malformed_token", "no failure of anybody"

    def test_there_is_a_limit_by_default(self) -> None:
        limits = RepeatedExchanges(Clock())
        for _ in range(600):
            limits.take("one")
        with pytest.raises(Refusal):
            limits.take("one")
        limits.take("another")


class TestGateway:
    def test_a_long_path_costs_one_bounded_event(self, front: Front) -> None:
        with logged() as log:
            answer = front.call("POST", f"/function/figlet.dev/{'x' * 8000}")
        assert answer.is_success, answer.text
        (event,) = front.journal.events
        assert not event.owed
        assert len(dumps_ascii(event.as_json())) < 2048
        one_bounded_line(log.getvalue(), "audit", answer.headers["x-request-id"])

    @pytest.mark.parametrize(("length", "status"), [(60_000, 413), (6000, 403)])
    def test_a_refused_call_of_a_function_makes_no_event(
        self, front: Front, length: int, status: int
    ) -> None:
        with logged() as log:
            answer = front.call("POST", f"/function/..%2f{'x' * length}")
        assert answer.status_code == status
        assert front.journal.events == []
        one_bounded_line(log.getvalue(), "gateway request refused", answer.headers["x-request-id"])

    def test_invalid_tokens_use_up_a_budget_and_valid_ones_of_the_same_address_pass(
        self, tmp_path: Path
    ) -> None:
        front = Front(tmp_path, failed_exchanges=3)
        good = front.grant(("*", "*"))
        forged = Front(tmp_path).grant(("*", "*"))
        said = [front.call("PUT", "/system/functions", token, json=DEPLOYMENT)
                for token in ("x", forged, "a.b.c", forged, "x")]  # fmt: skip
        assert [answer.status_code for answer in said] == [401, 401, 401, 429, 429]
        assert "Too many requests" in said[-1].text
        assert 1 <= int(said[-1].headers["retry-after"]) <= 60
        assert front.call("PUT", "/system/functions", good, json=DEPLOYMENT).is_success
        assert front.exchange().status_code != 429, "exchanges have a budget of their own"

    def test_a_request_without_a_token_is_no_guess(self, tmp_path: Path) -> None:
        front = Front(tmp_path, failed_exchanges=1)
        assert {front.call("GET", "/system/functions").status_code for _ in range(9)} == {401}
        assert front.call("GET", "/system/functions", "x").status_code == 401

    def test_a_proxy_keeps_its_callers_apart(self, tmp_path: Path) -> None:
        front = Front(tmp_path, failed_exchanges=1, trusted_proxies="127.0.0.0/8")
        said = [
            front.call("GET", "/system/functions", "x", headers={"X-Forwarded-For": address})
            for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")
        ]
        assert [answer.status_code for answer in said] == [401, 429, 401]

    def test_a_key_of_somebody_else_signs_nothing_here(self, front: Front) -> None:
        front.grant(("*", "*"))
        stranger = SigningKey.generate()

        token = sign(front.said(), stranger, ACCESS_TOKEN_TYPE).token  # type: ignore[arg-type]
        assert front.call("PUT", "/system/functions", token, json=DEPLOYMENT).status_code == 401
        assert front.journal.events == []


class TestPathsAsSent:
    """A reverse proxy that keeps a path to itself compares what is sent, and so does the broker."""

    PATHS = ("/%72eadyz", "/re%61dyz", "/livez%3f", "/oauth/%74oken", "/%2e/readyz", "//readyz")

    @pytest.mark.parametrize("path", PATHS)
    def test_another_spelling_is_not_there(self, path: str) -> None:
        for method in ("GET", "POST"):
            assert refusal(InProcess().ask(method, path)) == (404, "invalid_request")

    @pytest.mark.parametrize("path", PATHS)
    def test_nor_is_it_with_an_upstream(self, tmp_path: Path, path: str) -> None:
        with listening(tmp_path) as front:
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            answer = front.say(head.encode())
        assert answer.startswith(b"HTTP/1.1 401 "), answer
        assert front.received == []

    def test_the_plain_one_is(self) -> None:
        assert InProcess().ask("GET", "/readyz").status_code == 200


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "admitted"])
def test_an_unknown_caller_leaves_no_event_when_the_server_stops(
    tmp_path: Path, known: bool
) -> None:
    """It stops while a body arrives: of a health check, which needs no token, or of a deployment."""
    front = Front(tmp_path, audit_verbs="GET,PUT")
    token = front.grant(("*", "*"))
    headers = {"authorization": f"Bearer {token}"} if known else {}
    method, path, half = ("PUT", "/system/functions", b"{") if known else ("GET", "/healthz", b"")

    async def story(client: httpx2.AsyncClient) -> None:
        reading = asyncio.Event()

        async def without_end() -> AsyncIterator[bytes]:
            yield half
            reading.set()
            await asyncio.Event().wait()

        request = client.build_request(method, path, headers=headers, content=without_end())
        if not known:
            del request.headers["transfer-encoding"]  # or it is refused before its body is read
        asking = asyncio.create_task(client.send(request))
        await asyncio.wait_for(reading.wait(), 20)
        asking.cancel()
        (ended,) = await asyncio.gather(asking, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)

    front.tell(story)
    assert [event.response_code for event in front.journal.events] == ([500] if known else [])
