"""Attacks on the exchange that must keep failing."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from federation.audit.event import Trail
from federation.errors import Reason
from federation.exchange import ExchangeRequest
from federation.state.memory import MemoryStore
from federation.state.sqlite import SqliteStore
from federation.web.token import understand
from tests.harness.broker import (
    ACCESS_TOKEN,
    DOCUMENTS,
    ID_TOKEN,
    JWT,
    URL,
    InProcess,
    form,
    logged,
    refusal,
    said,
)
from tests.harness.builders import GITHUB, NOW
from tests.harness.issuer import FakeKey, base64url

CRLF = 'x\r\n{"event": "granted"}\n\x1b[2J\u2028\u202e\x00'
STRANGER = {
    "repository": "mallory/x",
    "repository_owner": "mallory",
    "repository_owner_id": "666",
    "repository_id": "667",
    "sub": "repo:mallory/x:ref:refs/heads/main",
}


@pytest.fixture
def broker() -> InProcess:
    return InProcess()


class TestReplay:
    @pytest.mark.parametrize("kind", ["memory", "sqlite"])
    def test_fifty_at_once_give_one_token(self, tmp_path: Path, kind: str) -> None:
        broker = InProcess(
            state=MemoryStore
            if kind == "memory"
            else lambda clock: SqliteStore(tmp_path / "db", clock)
        )
        token = broker.job()

        async def story(client: httpx2.AsyncClient) -> list[httpx2.Response]:
            try:
                return await asyncio.gather(
                    *(client.post("/oauth/token", data=form(token)) for _ in range(50))
                )
            finally:
                await broker.state.aclose()

        answers = broker.tell(story)
        counted = Counter(answer.json().get("reason", "granted") for answer in answers)
        assert counted == {"granted": 1, "already_used": 49}

    def test_another_signature_over_the_same_words_is_the_same_token(self) -> None:
        # Of ES256 anybody can make a second valid signature from the first: (r, n - s).
        broker = InProcess(_documents_taking_people_once())
        token = broker.job("keycloak-user", sub="someone", jti=None)
        assert broker.exchange(token).status_code == 200
        assert refusal(broker.exchange(_mirrored(token))) == (400, "already_used")

    def test_function_scope_spends_the_token_too(self, broker: InProcess) -> None:
        token = broker.job()
        assert broker.exchange(token, scope="function").status_code == 200
        assert refusal(broker.exchange(token)) == (400, "already_used")

    def test_a_jti_that_looks_like_anothers_is_its_own(self, broker: InProcess) -> None:
        for jti in ("1", "1 ", "1\0", 2, "a\0b"):
            assert broker.exchange(broker.job(jti=jti)).status_code == 200

    def test_a_refused_flood_spends_nothing(self, broker: InProcess) -> None:
        token = broker.job()
        for _ in range(20):
            broker.exchange(token, role="none")
        assert broker.exchange(token).status_code == 200


def _documents_taking_people_once() -> str:
    return DOCUMENTS.replace("tokenExpiry: 1h", "tokenExpiry: 1h, subjectTokenUse: once")


def _mirrored(token: str) -> str:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    words, _, signature = token.rpartition(".")
    raw = urlsafe_b64decode(signature + "==")
    mirrored = (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    return f"{words}.{base64url(raw[:32] + mirrored)}"


class TestRenewal:
    """None of the broker's tokens can be exchanged for a later or a wider one."""

    @pytest.mark.parametrize("token_type", [ID_TOKEN, ACCESS_TOKEN, JWT])
    @pytest.mark.parametrize(
        "changes",
        [{}, {"audience": URL}, {"requested_token_type": ID_TOKEN}, {"role": "octo-deployer"}],
        ids=["plain", "our audience", "as id_token", "role"],
    )
    def test_an_access_token_buys_no_access_token(
        self, broker: InProcess, token_type: str, changes: dict[str, Any]
    ) -> None:
        own = broker.access_token()
        answer = broker.exchange(own, subject_token_type=token_type, **changes)
        assert answer.status_code == 400
        assert "access_token" not in answer.json()

    def test_a_chain_of_exchanges_never_outlives_its_first_token(self, broker: InProcess) -> None:
        own = broker.access_token()
        for _ in range(5):
            broker.clock.advance(100)
            function = broker.access_token(own, scope="function")
            assert said(function)["exp"] == said(own)["exp"]
        broker.clock.advance(100)
        assert refusal(broker.exchange(own, scope="function")) == (400, "expired")

    def test_an_issuer_that_is_trusted_cannot_speak_for_the_broker(self, broker: InProcess) -> None:
        # GitHub signs a token that says it is ours: only our own keys count for our own name.
        forged = broker.github.token(broker.claims(iss=URL, policy=["deploy"]))
        assert broker.exchange(forged, scope="function").status_code == 400

    def test_the_brokers_own_keys_count_for_no_issuer(self, broker: InProcess) -> None:
        own = broker.access_token()
        header, payload, signature = own.split(".")
        assert broker.exchange(
            f"{header}.{payload}.{signature}x", scope="function"
        ).status_code == (400)

    def test_hostile_claims_do_not_pass_for_ours(self, broker: InProcess) -> None:
        hostile: dict[str, Any] = {
            "policy": ["admin"],
            "role": ["admin"],
            "function": {"permissions": ["*"]},
            "fed:iss": "https://evil.example",
            "fed:admin": True,
        }
        claims = said(broker.access_token(broker.job(**hostile)))
        assert claims["policy"] == ["deploy", "invoke", "look"]
        assert claims["role"] == ["octo-deployer", "octo-invoker"]
        assert claims["fed:iss"] == GITHUB
        assert not {"function", "fed:admin"} & set(claims)


class TestLogs:
    @pytest.mark.parametrize("log_format", ["json", "text"])
    @pytest.mark.parametrize("claim", ["sub", "ref", "repository", "actor", "jti", "event_name"])
    @pytest.mark.parametrize("hostile", [CRLF, "\x1b[2J", "\x9b2J", "a\u2028b", "a\rb"], ids=ascii)
    def test_a_claim_writes_no_line_of_its_own_and_moves_no_cursor(
        self, broker: InProcess, log_format: str, claim: str, hostile: str
    ) -> None:
        with logged(log_format) as log:
            broker.exchange(broker.job(**{claim: hostile}))
            broker.exchange(broker.job(**{claim: hostile, "aud": hostile}))
            broker.exchange(broker.github.token(broker.claims(), header={"kid": hostile}))
        written = log.getvalue()
        assert written.count("token_sha256") == 3
        for character in "\x1b\x9b\x00\r\u2028\u202e":
            assert character not in written
        for line in written.splitlines():
            if log_format == "json":
                assert json.loads(line)["level"]
            else:
                assert not line.startswith("{")

    @pytest.mark.parametrize("name", ["role", "audience", "scope", "grant_type", "x"])
    def test_a_parameter_writes_no_line_of_its_own(self, broker: InProcess, name: str) -> None:
        with logged() as log:
            answer = broker.exchange(scope="function", **({name: CRLF} if name != "scope" else {}))
        for line in log.getvalue().splitlines():
            json.loads(line)
        assert "\x1b" not in answer.text

    @pytest.mark.parametrize("claim", ["sub", "ref", "repository"])
    def test_a_description_holds_printable_ascii_alone(self, broker: InProcess, claim: str) -> None:
        # RFC 6749, section 5.2
        hostile = {"ref": "refs/heads/x", claim: CRLF + '"\\é'}
        told = broker.exchange(broker.job(**hostile)).json()["error_description"]
        assert all(" " <= c <= "~" and c not in '"\\' for c in told)

    def test_no_token_is_ever_logged_or_recorded(self, broker: InProcess) -> None:
        tokens = [broker.job(), broker.job(ref="x"), broker.job(aud="x"), "eyJhbGciOiJub25lIn0.e.x"]
        with logged() as log:
            answers = [broker.exchange(token) for token in tokens]
            own = str(answers[0].json()["access_token"])
            broker.exchange(own)
            function = broker.access_token(own, scope="function")
            broker.exchange(function, scope="function")
            broker.exchange("x" * 17_000)
            for misplaced in ("audience", "role"):
                broker.exchange(scope="function", **{misplaced: own})
        recorded = json.dumps([event.as_json() for event in broker.journal.events])
        shown = log.getvalue() + recorded + repr(broker.journal.events)
        for token in [*tokens, own, function]:
            _, payload, signature = token.split(".")
            assert signature == "x" or signature not in shown
            assert len(payload) < 5 or payload not in shown

    def test_values_that_hold_a_token_hide_it_in_their_repr(self, broker: InProcess) -> None:
        request = understand({name: [str(value)] for name, value in form("a.SECRET.b").items()})
        assert "SECRET" not in repr(request)
        assert "SECRET" not in repr(ExchangeRequest("SECRET"))
        trail = Trail("r", "POST", "/", NOW)
        assert "SECRET" not in repr(trail)
        assert "PrivateKey" not in repr(broker.app.state.broker.signing)


class TestOracles:
    def test_a_bad_signature_is_the_same_answer_whatever_it_claims(self, broker: InProcess) -> None:
        other = FakeKey(which=1)
        answers = {
            broker.exchange(broker.github.token(broker.claims(**claims), key=other)).json()[
                "error_description"
            ]
            for claims in ({}, STRANGER, {"aud": "x"}, {"exp": 1}, {"repository_owner_id": "777"})
        }
        assert answers == {Reason.BAD_SIGNATURE.sentence}

    def test_a_stranger_cannot_tell_owners_with_roles_from_those_without(
        self, broker: InProcess
    ) -> None:
        def told(**claims: Any) -> str:
            answer = broker.exchange(broker.job(**{**STRANGER, **claims}))
            assert refusal(answer) == (400, "no_role_admits")
            return str(answer.json()["error_description"])

        assert told() == told(actor="acme-bot") == told(repository="octo-org/mine")
        assert told(head_ref="acme") == told()

    def test_a_new_owner_of_an_old_name_learns_nothing(self, broker: InProcess) -> None:
        # Somebody registers a name that was given up: the name fits, the id does not.
        squatter = {**STRANGER, "repository": "octo-org/octo-repo", "repository_owner": "octo-org"}
        answer = broker.exchange(broker.job(**squatter))
        assert answer.json()["error_description"] == (
            "No policies found for subject: repo:mallory/x:ref:refs/heads/main."
        )

    def test_unknown_and_foreign_roles_are_the_same_answer(self, broker: InProcess) -> None:
        answers = set()
        for name in ("acme-deployer", "no-such-role", "people", "group-deployer", "octo-deployer"):
            body = broker.exchange(broker.job(**STRANGER), role=name).json()
            answers.add((body["error"], body["reason"], body["error_description"]))
        assert len(answers) == 1
