"""The token exchange within one process: parameters, grants, refusals."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from federation.audit.event import Event
from federation.documents.catalog import Catalog
from federation.documents.model import Role
from federation.errors import Reason, Refusal
from federation.jose import jws
from federation.state.memory import MemoryStore
from federation.tokens.signing_keys import SigningKey
from tests.harness.broker import (
    ACCESS_TOKEN,
    DOCUMENTS,
    GRANT,
    HIDDEN,
    ID_TOKEN,
    JWT,
    URL,
    BrokenStore,
    InProcess,
    catalog_of,
    form,
    logged,
    refusal,
    said,
)
from tests.harness.builders import ABSENT, GENERIC, GITHUB, GITLAB, NOW
from tests.harness.issuer import FakeKey, answering

IDP = "keycloak-user"
PERSON = {"sub": "someone"}
STRANGER = {
    "repository": "mallory/octo-repo",
    "repository_owner": "mallory",
    "repository_owner_id": "666",
    "repository_id": "667",
    "sub": "repo:mallory/octo-repo:ref:refs/heads/main",
}


@pytest.fixture
def broker() -> InProcess:
    return InProcess()


class TestGrant:
    def test_a_job_gets_an_access_token_in_the_shape_of_rfc_8693(self, broker: InProcess) -> None:
        answer = broker.exchange()
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert body.pop("access_token").count(".") == 2
        assert body == {
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": 600,
        }

    def test_the_token_unites_the_policies_of_all_roles_that_admit(self, broker: InProcess) -> None:
        claims = said(broker.access_token())
        assert claims["role"] == ["octo-deployer", "octo-invoker"]
        assert claims["policy"] == ["deploy", "invoke", "look"]
        assert claims["iss"] == claims["aud"] == URL
        assert claims["sub"] == "fed:repo:octo-org/octo-repo:ref:refs/heads/main"
        assert claims["fed:iss"] == GITHUB
        assert claims["exp"] == NOW + 600

    @pytest.mark.parametrize(
        ("sample", "changes"),
        [
            pytest.param("github-push-main", {}, id="github"),
            pytest.param("gitlab-branch-main", {}, id="gitlab"),
            pytest.param(IDP, PERSON, id="a person"),
        ],
    )
    def test_tokens_of_every_kind_of_issuer_are_exchanged(
        self, broker: InProcess, sample: str, changes: dict[str, Any]
    ) -> None:
        assert broker.exchange(broker.job(sample, **changes)).status_code == 200

    def test_two_tokens_never_share_a_jti(self, broker: InProcess) -> None:
        assert said(broker.access_token())["jti"] != said(broker.access_token())["jti"]

    def test_the_first_key_signs(self) -> None:
        first, second = SigningKey.generate(), SigningKey.generate()
        token = InProcess(signing=[first, second]).access_token()
        assert jws.parse(token).header["kid"] == first.kid

    def test_an_event_is_recorded_for_the_grant(self, broker: InProcess) -> None:
        token = broker.job()
        answer = broker.exchange(token)
        (event,) = broker.journal.events
        assert event.request_id == answer.headers["x-request-id"]
        assert (event.response_code, event.method, event.path) == (200, "POST", "/oauth/token")
        assert event.actor is not None
        assert event.actor.sub == "fed:repo:octo-org/octo-repo:ref:refs/heads/main"
        assert event.actor.fed_issuer == GITHUB
        assert event.roles == ("octo-deployer", "octo-invoker")
        assert event.policies == ("deploy", "invoke", "look")
        assert event.reason is None
        assert len(event.token_sha256 or "") == 64
        assert token not in json.dumps(event.as_json())


class TestParameters:
    @pytest.mark.parametrize("token_type", [ACCESS_TOKEN, JWT, ID_TOKEN])
    def test_the_token_type_asked_for_is_echoed(self, broker: InProcess, token_type: str) -> None:
        answer = broker.exchange(requested_token_type=token_type)
        assert answer.json()["issued_token_type"] == token_type

    @pytest.mark.parametrize("token_type", [ID_TOKEN, JWT])
    def test_a_subject_token_may_be_called_either(self, broker: InProcess, token_type: str) -> None:
        assert broker.exchange(subject_token_type=token_type).status_code == 200

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            pytest.param({"grant_type": None}, "invalid_request", id="no grant_type"),
            pytest.param({"grant_type": "client_credentials"}, "unsupported_grant_type",
                         id="another grant_type"),
            pytest.param({"grant_type": GRANT.upper()}, "unsupported_grant_type",
                         id="grant_type in capitals"),
            pytest.param({"subject_token": None}, "invalid_request", id="no subject_token"),
            pytest.param({"subject_token": " "}, "malformed_token", id="blank subject_token"),
            pytest.param({"subject_token_type": None}, "invalid_request", id="no token type"),
            pytest.param({"subject_token_type": "jwt"}, "invalid_request", id="short token type"),
            pytest.param({"subject_token_type": JWT.replace("jwt", "saml2")}, "invalid_request",
                         id="saml2"),
            pytest.param({"subject_token_type": ACCESS_TOKEN}, "invalid_request",
                         id="a CI token called access_token"),
            pytest.param({"requested_token_type": "jwt"}, "invalid_request",
                         id="unknown requested_token_type"),
            pytest.param({"scope": "admin"}, "invalid_scope", id="another scope"),
            pytest.param({"scope": "function function"}, "invalid_scope", id="two scopes"),
            pytest.param({"scope": "FUNCTION"}, "invalid_scope", id="scope in capitals"),
            pytest.param({"audience": "https://else.example"}, "invalid_target",
                         id="another audience"),
            pytest.param({"audience": URL + "/"}, "invalid_target", id="audience with a slash"),
            pytest.param({"audience": [URL, "https://else.example"]}, "invalid_target",
                         id="our audience and another"),
            pytest.param({"audience": "dev:env"}, "invalid_target", id="function without scope"),
            pytest.param({"audience": [f"a{n}" for n in range(51)]}, "invalid_request",
                         id="51 audiences"),
            pytest.param({"role": [f"a{n}" for n in range(51)]}, "invalid_request", id="51 roles"),
        ],
    )  # fmt: skip
    def test_it_is_refused(self, broker: InProcess, changes: dict[str, Any], reason: str) -> None:
        answer = broker.exchange(**changes)
        assert refusal(answer) == (400, reason)
        assert answer.headers["cache-control"] == "no-store"

    @pytest.mark.parametrize(
        "name",
        ["grant_type", "subject_token", "subject_token_type", "requested_token_type", "scope"],
    )
    @pytest.mark.parametrize("same", [True, False], ids=["same", "different"])
    def test_a_parameter_given_twice_is_refused(
        self, broker: InProcess, name: str, same: bool
    ) -> None:
        good = {**form(broker.job()), "requested_token_type": JWT, "scope": "function"}
        answer = broker.post(
            "/oauth/token", good | {name: [good[name], good[name] if same else ""]}
        )
        assert refusal(answer) == (400, "invalid_request")
        assert "twice" in answer.json()["error_description"]
        assert name in answer.json()["error_description"]

    @pytest.mark.parametrize("name", ["resource", "actor_token", "client_id", "x-y", "ROLE"])
    def test_an_unknown_parameter_is_ignored(self, broker: InProcess, name: str) -> None:
        assert broker.exchange(**{name: "anything"}).status_code == 200

    @pytest.mark.parametrize("name", ["requested_token_type", "scope", "audience", "role"])
    def test_a_parameter_without_a_value_counts_as_absent(
        self, broker: InProcess, name: str
    ) -> None:
        answer = broker.exchange(**{name: ""})
        assert answer.status_code == 200
        assert "scope" not in answer.json()

    @pytest.mark.parametrize("name", ["grant_type", "subject_token", "subject_token_type"])
    def test_a_needed_parameter_without_a_value_is_missing(
        self, broker: InProcess, name: str
    ) -> None:
        answer = broker.exchange(**{name: ""}) if name != "subject_token" else broker.post(
            "/oauth/token", form("")
        )  # fmt: skip
        assert refusal(answer) == (400, "invalid_request")
        assert f"{name} is missing" in answer.json()["error_description"]

    def test_the_brokers_own_url_is_an_audience(self, broker: InProcess) -> None:
        assert broker.exchange(audience=[URL, URL]).status_code == 200


class TestRoles:
    def test_only_the_roles_that_are_named_take_part(self, broker: InProcess) -> None:
        claims = said(broker.access_token(role="octo-deployer"))
        assert (claims["role"], claims["policy"]) == (["octo-deployer"], ["deploy"])
        assert claims["exp"] == NOW + 1800

    def test_several_may_be_named(self, broker: InProcess) -> None:
        claims = said(broker.access_token(role=["octo-invoker", "octo-deployer", "octo-invoker"]))
        assert claims["role"] == ["octo-deployer", "octo-invoker"]

    @pytest.mark.parametrize(
        "roles",
        [
            pytest.param(["octo-releaser"], id="one that does not admit"),
            pytest.param(["octo-deployer", "octo-releaser"], id="one that admits, one not"),
            pytest.param(["no-such-role"], id="one that is not there"),
            pytest.param(["acme-deployer"], id="a stranger's"),
            pytest.param(["OCTO-DEPLOYER"], id="in capitals"),
            pytest.param(["octo-deployer octo-invoker"], id="two in one"),
        ],
    )
    def test_a_role_that_does_not_admit_is_refused_even_beside_one_that_does(
        self, broker: InProcess, roles: list[str]
    ) -> None:
        token = broker.job()
        assert refusal(broker.exchange(token, role=roles)) == (400, "role_not_admitted")
        assert broker.exchange(token).status_code == 200, "the token was not spent"

    def test_no_role_admits(self, broker: InProcess) -> None:
        answer = broker.exchange(broker.job(ref="refs/heads/other"))
        assert refusal(answer) == (400, "no_role_admits")
        assert answer.json()["error"] == "invalid_request"
        assert answer.json()["error_description"].startswith("No policies found for subject: repo:")

    def test_an_outsiders_event_is_refused(self, broker: InProcess) -> None:
        answer = broker.exchange(broker.job(event_name="pull_request_target"))
        assert refusal(answer) == (400, "event_not_allowed")

    def test_a_forks_merge_request_is_refused(self, broker: InProcess) -> None:
        job = broker.job("gitlab-branch-main", pipeline_source="merge_request_event")
        assert refusal(broker.exchange(job)) == (400, "event_not_allowed")


class TestSubjectToken:
    """One row for each step that a subject token can fail at, seen from outside."""

    @pytest.mark.parametrize(
        ("sample", "changes", "reason"),
        [
            pytest.param("github-push-main", {"iss": "https://evil.example"}, "untrusted_issuer",
                         id="untrusted issuer"),
            pytest.param("github-push-main", {"iss": GITHUB + "/"}, "untrusted_issuer",
                         id="issuer with a slash"),
            pytest.param("github-push-main", {"iss": ABSENT}, "missing_claim", id="no issuer"),
            pytest.param("github-push-main", {"aud": "https://else"}, "wrong_audience",
                         id="wrong audience"),
            pytest.param("github-push-main", {"aud": [URL, "x"]}, "wrong_audience",
                         id="two audiences from github"),
            pytest.param("github-push-main", {"aud": ABSENT}, "missing_claim", id="no audience"),
            pytest.param("github-push-main", {"exp": NOW - 31}, "expired", id="expired"),
            pytest.param("github-push-main", {"exp": ABSENT}, "missing_claim", id="no exp"),
            pytest.param("github-push-main", {"iat": ABSENT}, "missing_claim", id="no iat"),
            pytest.param("github-push-main", {"nbf": NOW + 31}, "not_yet_valid", id="nbf ahead"),
            pytest.param("github-push-main", {"iat": NOW + 31}, "not_yet_valid", id="iat ahead"),
            pytest.param("github-push-main", {"sub": ABSENT}, "missing_claim", id="no sub"),
            pytest.param("github-push-main", {"sub": 5}, "malformed_token", id="sub a number"),
            pytest.param("github-push-main", {"repository_id": ABSENT}, "missing_claim",
                         id="github profile"),
            pytest.param("gitlab-user-login", {}, "not_a_ci_token", id="gitlab profile"),
        ],
    )  # fmt: skip
    def test_it_is_refused(
        self, broker: InProcess, sample: str, changes: dict[str, Any], reason: str
    ) -> None:
        with logged() as log:
            assert refusal(broker.exchange(broker.job(sample, **changes))) == (400, reason)
        (line,) = map(json.loads, log.getvalue().splitlines())
        assert (line["reason"], line["response_code"]) == (reason, 400)
        assert line["token_sha256"]
        known = [event.actor is not None for event in broker.journal.events]
        assert known == ([True] if line["event"] == "audit" else [])

    @pytest.mark.parametrize(
        ("token", "reason"),
        [
            pytest.param("a.b", "malformed_token", id="two segments"),
            pytest.param("e30.e30.e30", "missing_claim", id="empty objects"),
            pytest.param("A" * 16385, "token_too_large", id="too large"),
            pytest.param("é.b.c", "malformed_token", id="not ASCII"),
        ],
    )
    def test_text_that_is_not_a_token_is_refused(
        self, broker: InProcess, token: str, reason: str
    ) -> None:
        assert refusal(broker.exchange(token)) == (400, reason)

    def test_another_key_is_a_bad_signature(self, broker: InProcess) -> None:
        forged = broker.github.token(broker.claims(), key=FakeKey(which=1))
        assert refusal(broker.exchange(forged)) == (400, "bad_signature")

    def test_a_key_that_is_not_published_is_unknown(self, broker: InProcess) -> None:
        forged = broker.github.token(broker.claims(), key=FakeKey(kid="other", which=1))
        assert refusal(broker.exchange(forged)) == (400, "unknown_key")

    def test_an_untrusted_issuer_causes_no_traffic(self, broker: InProcess) -> None:
        broker.exchange(broker.job(iss=GITHUB + "/x"))
        assert broker.github.requests == []

    def test_keys_that_cannot_be_fetched_are_a_503_with_retry_after(
        self, broker: InProcess
    ) -> None:
        broker.github.key_set = answering(500)
        answer = broker.exchange()
        assert refusal(answer) == (503, "keys_unavailable")
        assert answer.json()["error"] == "temporarily_unavailable"
        assert int(answer.headers["retry-after"]) > 0

    def test_nothing_is_exchanged_before_the_documents_were_read(self, broker: InProcess) -> None:
        own = broker.access_token()
        issuers = broker.source.catalog.issuers
        broker.source.catalog = Catalog(issuers=issuers, awaited="the first list of Roles")
        for token, changes in ((broker.job(), {}), (own, {"scope": "function"})):
            answer = broker.exchange(token, **changes)
            assert refusal(answer) == (503, "documents_unavailable")
            assert answer.json()["error_description"] == Reason.DOCUMENTS_UNAVAILABLE.sentence
            assert int(answer.headers["retry-after"]) > 0

    def test_while_documents_are_left_out_a_token_hides_its_roles_from_conditions(
        self, broker: InProcess
    ) -> None:
        broker.source.catalog = replace(broker.source.catalog, incomplete=True)
        assert said(broker.access_token())["fed:deny_only"] == []

    def test_a_role_that_cannot_be_read_refuses_and_the_event_names_it(
        self, broker: InProcess
    ) -> None:
        broker.source.catalog = replace(broker.source.catalog, refusing=(Role("unread", (), ()),))
        answer = broker.exchange()
        assert refusal(answer) == (400, "policy_missing")
        assert "unread" not in answer.text
        (event,) = broker.journal.events
        assert "unread" in json.dumps(event.as_json())

    def test_the_caller_gets_no_details_before_signature_and_audience_are_verified(
        self, broker: InProcess
    ) -> None:
        for reason, token in {
            Reason.WRONG_AUDIENCE: broker.job(aud="x"),
            Reason.UNTRUSTED_ISSUER: broker.job(iss="https://evil.example"),
            Reason.BAD_SIGNATURE: broker.github.token(broker.claims(), key=FakeKey(which=1)),
            Reason.UNKNOWN_KEY: broker.github.token(broker.claims(), key=FakeKey(kid="x", which=1)),
            Reason.MALFORMED_TOKEN: "a.b.c",
        }.items():
            assert broker.exchange(token).json()["error_description"] == reason.sentence


class TestSpending:
    def test_a_ci_token_is_accepted_once(self, broker: InProcess) -> None:
        token = broker.job()
        assert broker.exchange(token).status_code == 200
        assert refusal(broker.exchange(token)) == (400, "already_used")

    def test_the_jti_counts_and_not_the_bytes(self, broker: InProcess) -> None:
        claims = broker.claims()
        assert broker.exchange(broker.github.token(claims)).status_code == 200
        again = broker.github.token({**claims, "run_attempt": "2"})
        assert refusal(broker.exchange(again)) == (400, "already_used")

    def test_without_jti_the_token_itself_counts(self, broker: InProcess) -> None:
        token = broker.job(jti=ABSENT)
        assert broker.exchange(token).status_code == 200
        assert refusal(broker.exchange(token)) == (400, "already_used")
        assert broker.exchange(broker.job(jti=ABSENT, run_id="7")).status_code == 200

    def test_one_jti_of_two_issuers_is_two_tokens(self, broker: InProcess) -> None:
        assert broker.exchange(broker.job(jti="same")).status_code == 200
        assert broker.exchange(broker.job("gitlab-branch-main", jti="same")).status_code == 200

    def test_a_refused_token_is_not_spent(self, broker: InProcess) -> None:
        token = broker.job()
        for bad in ({"role": "none"}, {"audience": "x"}, {"scope": "function", "audience": "x:y"}):
            assert broker.exchange(token, **bad).status_code == 400
        assert broker.exchange(token).status_code == 200

    def test_a_workloads_token_is_accepted_once_whoever_issued_it(self, broker: InProcess) -> None:
        token = broker.job(IDP, **PERSON)
        assert [broker.exchange(token).status_code for _ in range(3)] == [200, 400, 400]

    @pytest.mark.parametrize(
        ("provider", "use", "sample", "second"),
        [
            pytest.param("idp", "many", IDP, 200, id="any issuer's, many"),
            pytest.param("github", "many", "github-push-main", 200, id="github's, many"),
        ],
    )
    def test_the_document_sets_if_a_token_can_be_used_once_or_often(
        self, provider: str, use: str, sample: str, second: int
    ) -> None:
        iss = {"idp": GENERIC, "github": GITHUB}[provider]
        written = f'iss: "{iss}", aud'
        broker = InProcess(DOCUMENTS.replace(written, f'iss: "{iss}", subjectTokenUse: {use}, aud'))
        token = broker.job(sample, **(PERSON if sample == IDP else {}))
        assert broker.exchange(token).status_code == 200
        assert broker.exchange(token).status_code == second

    def test_a_token_stays_spent_until_its_leeway_has_passed(self, broker: InProcess) -> None:
        token = broker.job()
        expires = said(token)["exp"]
        assert isinstance(expires, float)
        assert broker.exchange(token).status_code == 200
        broker.clock.now = expires + 29.9
        assert refusal(broker.exchange(token)) == (400, "already_used")
        broker.clock.now = expires + 30
        assert refusal(broker.exchange(token)) == (400, "expired")

    def test_a_token_that_expires_while_keys_are_fetched_is_refused(
        self, broker: InProcess
    ) -> None:
        token = broker.job()
        expires = said(token)["exp"]
        assert isinstance(expires, float)

        async def slow(request: httpx2.Request) -> httpx2.Response:
            broker.clock.now = expires + 30
            return await broker.github.good_key_set(request)

        broker.github.key_set = slow
        assert refusal(broker.exchange(token)) == (400, "expired")

    def test_the_store_is_told_to_keep_it_beyond_its_expiry_and_leeway(self) -> None:
        told: list[tuple[float, float]] = []

        class Recording(MemoryStore):
            async def spend(self, key: str, until: float, issued: float) -> bool:
                told.append((until, issued))
                return await super().spend(key, until, issued)

        broker = InProcess(state=Recording)
        assert broker.exchange(broker.job(iat=NOW - 5, exp=NOW + 100)).status_code == 200
        assert told == [(NOW + 100 + 30 + 5, NOW - 5)]

    def test_a_token_is_restored_if_its_event_cannot_be_written(self, broker: InProcess) -> None:
        token = broker.job()
        broker.journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
        answer = broker.exchange(token)
        assert refusal(answer) == (503, "audit_unavailable")
        assert "retry-after" in answer.headers
        assert "access_token" not in answer.text
        broker.journal.failure = None
        assert broker.exchange(token).status_code == 200

    @pytest.mark.parametrize(
        "failure", [Refusal(Reason.AUDIT_UNAVAILABLE), OSError("disk on fire")], ids=["full", "odd"]
    )
    def test_the_event_of_a_token_that_was_not_given_does_not_say_that_it_was(
        self, broker: InProcess, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        """The journal may have room again for the event of the refusal."""
        journal = broker.journal
        written = journal.record

        async def fails_once(event: Event) -> None:
            monkeypatch.setattr(journal, "record", written)
            raise failure

        monkeypatch.setattr(journal, "record", fails_once)
        assert broker.exchange().status_code >= 500
        (event,) = journal.events
        assert event.reason
        assert event.issued_token_sha256 is None

    def test_a_token_is_restored_if_the_journal_raises_an_unexpected_exception(
        self, broker: InProcess
    ) -> None:
        token = broker.job()
        broker.journal.failure = OSError("disk on fire")
        answer = broker.exchange(token)
        assert answer.status_code == 500
        assert "fire" not in answer.text
        broker.journal.failure = None
        assert broker.exchange(token).status_code == 200

    def test_a_store_that_cannot_answer_is_503(self) -> None:
        broker = InProcess(state=BrokenStore)
        answer = broker.exchange()
        assert refusal(answer) == (503, "state_unavailable")
        assert "retry-after" in answer.headers
        (event,) = broker.journal.events
        assert (event.response_code, event.reason) == (503, "state_unavailable")

    def test_a_token_is_restored_if_the_caller_disconnects_while_its_event_is_written(
        self, broker: InProcess
    ) -> None:
        token = broker.job()

        async def story(client: httpx2.AsyncClient) -> None:
            broker.journal.hanging = asyncio.Event()
            asking = asyncio.create_task(client.post("/oauth/token", data=form(token)))
            await broker.journal.hanging.wait()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            broker.journal.hanging = None

        broker.tell(story)
        assert broker.exchange(token).status_code == 200


class TestFunctionTokens:
    def test_a_job_gets_one_straight_from_its_own_token(self, broker: InProcess) -> None:
        answer = broker.exchange(scope="function")
        assert answer.json()["scope"] == "function"
        claims = said(answer.json()["access_token"])
        of_ours = {"iss", "sub", "aud", "iat", "exp", "jti", "function"}
        assert set(claims) == {*of_ours, "fed:iss"}
        assert claims["aud"] == [URL]
        assert claims["sub"] == "fed:repo:octo-org/octo-repo:ref:refs/heads/main"

    def test_without_an_audience_it_holds_what_invoke_grants_and_no_exception(
        self, broker: InProcess
    ) -> None:
        function = said(broker.access_token(scope="function"))["function"]
        # dev:* is left out: a list of grants cannot say "but not dev:vault".
        assert function == {"permissions": ["prod:env", "prod:cows"]}

    def test_with_audiences_it_holds_exactly_those(self, broker: InProcess) -> None:
        asked = ["dev:env", "prod:cows", "dev:env"]
        function = said(broker.access_token(scope="function", audience=asked))["function"]
        exactly = ["dev:env", "prod:cows"]
        assert function == {"permissions": exactly, "audience": exactly}

    @pytest.mark.parametrize(
        "audience",
        ["prod:other", "dev:vault", "*", "dev:*", "*:*", "dev:en*", "dev", "dev:", ":env", "env",
         "dev:env ", "dev:env\n", "dev:.*", "dev:env|prod", "^dev:env$", "dev:env:x", URL, "d\0v:e"],
    )  # fmt: skip
    def test_an_audience_that_is_not_granted_or_not_one_function_is_refused(
        self, broker: InProcess, audience: str
    ) -> None:
        answer = broker.exchange(scope="function", audience=["dev:env", audience])
        assert refusal(answer) == (400, "invalid_target")

    def test_one_that_may_invoke_nothing_gets_none(self, broker: InProcess) -> None:
        answer = broker.exchange(broker.job(IDP, **PERSON), scope="function")
        assert refusal(answer) == (400, "invalid_scope")

    @pytest.mark.parametrize("token_type", [ID_TOKEN, ACCESS_TOKEN, JWT])
    def test_an_access_token_is_traded_for_one_under_any_of_its_names(
        self, broker: InProcess, token_type: str
    ) -> None:
        own = broker.access_token()
        answer = broker.exchange(
            own, subject_token_type=token_type, scope="function", audience="dev:env"
        )
        assert answer.status_code == 200
        claims = said(answer.json()["access_token"])
        assert claims["function"] == {"permissions": ["dev:env"], "audience": ["dev:env"]}
        assert claims["jti"] != said(own)["jti"]

    def test_an_access_token_may_be_traded_again_and_again(self, broker: InProcess) -> None:
        own = broker.access_token()
        assert [broker.exchange(own, scope="function").status_code for _ in range(3)] == [200] * 3

    def test_it_ends_with_the_access_token(self, broker: InProcess) -> None:
        own = broker.access_token()
        broker.clock.advance(500)
        answer = broker.exchange(own, scope="function")
        assert said(answer.json()["access_token"])["exp"] == said(own)["exp"]
        assert answer.json()["expires_in"] == 100

    @pytest.mark.parametrize("audience", [None, URL])
    def test_an_access_token_is_not_renewed(self, broker: InProcess, audience: str | None) -> None:
        answer = broker.exchange(broker.access_token(), audience=audience)
        assert refusal(answer) == (400, "invalid_scope")

    @pytest.mark.parametrize("token_type", [ID_TOKEN, ACCESS_TOKEN, JWT])
    @pytest.mark.parametrize("scope", [None, "function"])
    def test_a_function_token_is_never_a_subject_token(
        self, broker: InProcess, token_type: str, scope: str | None
    ) -> None:
        function = broker.access_token(scope="function")
        answer = broker.exchange(function, subject_token_type=token_type, scope=scope)
        assert answer.status_code == 400
        assert answer.json()["reason"] in {"wrong_audience", "invalid_scope"}

    def test_an_expired_access_token_gives_none(self, broker: InProcess) -> None:
        own = broker.access_token()
        broker.clock.advance(600)
        assert refusal(broker.exchange(own, scope="function")) == (400, "expired")

    def test_a_revoked_access_token_gives_none(self, broker: InProcess) -> None:
        own = broker.access_token()
        assert broker.post("/oauth/revoke", {"token": own}).status_code == 200
        assert refusal(broker.exchange(own, scope="function")) == (400, "revoked")

    def test_a_forged_access_token_gives_none(self, broker: InProcess) -> None:
        forged = InProcess().access_token()
        assert refusal(broker.exchange(forged, scope="function")) == (400, "unknown_key")

    def test_roles_narrow_it(self, broker: InProcess) -> None:
        own = broker.access_token()
        both = ["dev:env", "prod:env"]
        narrow = {"scope": "function", "role": "octo-invoker"}
        assert broker.exchange(own, audience=both, scope="function").status_code == 200
        assert broker.exchange(own, audience="prod:env", **narrow).status_code == 200
        assert refusal(broker.exchange(own, audience=both, **narrow)) == (400, "invalid_target")

    def test_roles_never_widen_it(self, broker: InProcess) -> None:
        own = broker.access_token(role="octo-invoker")
        wide = {"scope": "function", "role": "octo-deployer", "audience": "dev:env"}
        assert refusal(broker.exchange(own, **wide)) == (400, "role_not_admitted")

    def test_policies_that_were_taken_away_since_give_nothing(self, broker: InProcess) -> None:
        own = broker.access_token()
        before, _, after = DOCUMENTS.partition("{sid: call, effect: Allow")
        broker.source.catalog = catalog_of(before + "{sid: call, effect: Deny" + after)
        answer = broker.exchange(own, scope="function", audience="prod:env")
        assert refusal(answer) == (400, "invalid_target")

    def test_the_event_names_who_was_behind_the_access_token(self, broker: InProcess) -> None:
        own = broker.access_token()
        broker.exchange(own, scope="function")
        event = broker.journal.events[-1]
        assert event.actor is not None
        assert event.actor.sub == "fed:repo:octo-org/octo-repo:ref:refs/heads/main"
        assert event.actor.fed_issuer == GITHUB
        assert event.roles == ("octo-deployer", "octo-invoker")


class TestDetailsOfRefusals:
    """Only the owner of the code gets details, and never the values that a Role expects."""

    def test_the_owner_is_told_which_keys_failed_with_its_own_values(
        self, broker: InProcess
    ) -> None:
        told = broker.exchange(broker.job(ref="refs/heads/topic")).json()["error_description"]
        assert "octo-releaser" in told
        assert "jwt:ref (the token has refs/heads/topic)" in told

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({}, id="default"),
            pytest.param({"role": "octo-releaser"}, id="named"),
            pytest.param({"role": ["octo-releaser", "acme-deployer"]}, id="named with another's"),
        ],
    )
    def test_no_caller_is_told_which_values_a_role_expects(
        self, broker: InProcess, changes: dict[str, Any]
    ) -> None:
        answer = broker.exchange(broker.job(ref="refs/heads/topic"), **changes)
        assert answer.status_code == 400
        assert HIDDEN not in answer.text
        without_id = {**answer.json(), "request_id": ""}  # random digits, and 777 may be among them
        assert "777" not in json.dumps(without_id)
        assert "acme" not in answer.json()["error_description"]

    def test_a_stranger_gets_the_constant_sentence_only(self, broker: InProcess) -> None:
        answer = broker.exchange(broker.job(**STRANGER))
        assert answer.json()["error_description"] == (
            "No policies found for subject: repo:mallory/octo-repo:ref:refs/heads/main."
        )

    @pytest.mark.parametrize("name", ["acme-deployer", "octo-deployer", "no-such-role"])
    def test_a_stranger_cannot_find_out_if_a_role_exists(
        self, broker: InProcess, name: str
    ) -> None:
        answer = broker.exchange(broker.job(**STRANGER), role=name)
        assert refusal(answer) == (400, "role_not_admitted")
        assert answer.json()["error_description"] == Reason.ROLE_NOT_ADMITTED.sentence

    def test_the_same_claims_from_another_issuer_match_no_role(self, broker: InProcess) -> None:
        # Whoever can set a claim at one issuer does not own what bears that name at another.
        pretender = broker.job(
            IDP, repository="octo-org/octo-repo", repository_owner_id="13420041", ref="x"
        )
        answer = broker.exchange(pretender, role="octo-deployer")
        assert refusal(answer) == (400, "role_not_admitted")
        assert answer.json()["error_description"] == Reason.ROLE_NOT_ADMITTED.sentence

    def test_the_event_has_expected_and_actual_values_under_the_same_id(
        self, broker: InProcess
    ) -> None:
        answer = broker.exchange(broker.job(ref="refs/heads/topic"))
        (event,) = broker.journal.events
        written = json.dumps(event.as_json())
        assert event.request_id == answer.json()["request_id"]
        assert HIDDEN in written
        assert "refs/heads/topic" in written

    def test_the_log_has_the_details_that_a_stranger_is_not_told(self, broker: InProcess) -> None:
        with logged() as log:
            broker.exchange(broker.job(aud="https://wrong.example"))
        assert "https://wrong.example" in log.getvalue()


def test_unexpected_exceptions_leave_an_event_too(broker: InProcess) -> None:
    def broken(_names: object, _catalog: object) -> Any:
        raise RuntimeError("secret detail")

    broker.app.state.broker.policies.of = broken
    answer = broker.exchange(scope="function")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    (event,) = broker.journal.events
    assert event.response_code == 500
    assert event.request_id == answer.json()["request_id"]


def test_gitlab_is_compared_by_its_own_name(broker: InProcess) -> None:
    assert said(broker.access_token(broker.job("gitlab-branch-main")))["fed:iss"] == GITLAB
