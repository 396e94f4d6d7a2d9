"""`federation replay` decides what the trail recorded again, by other documents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from federation.audit.journal import FileJournal
from federation.audit.read import in_order
from federation.audit.segments import OUTSIDERS, parts
from federation.cli import main
from federation.documents.catalog import Catalog
from federation.documents.model import Policy, Role
from federation.policy.replay import Change, Kind
from federation.replayed.replay import Replay
from tests.harness import builders, generators
from tests.harness.broker import InProcess
from tests.harness.builders import GENERIC, GITHUB, GITLAB, catalog, pinned, policy
from tests.harness.documents import DOCUMENTS, HIDDEN
from tests.harness.gateway import Front
from tests.harness.journal_writer import SIZE, sign

Json = dict[str, Any]

DEPLOY = policy("deploy", {"action": ["Function:*"], "resource": ["dev:*"]})
LOOK = policy("look", {"action": ["Function:List"], "resource": ["*"]})
OCTO = {"repository_owner_id": "13420041", "repository_id": "412890077"}


def events_of(broker: InProcess) -> list[Json]:
    """The events that *broker* recorded, as a webhook gets them."""
    return [json.loads(json.dumps(event.as_json())) for event in broker.journal.events]


def decided(events: Iterable[Json | None], new: Catalog, old: Catalog | None = None) -> Replay:
    replayed = Replay(new, old)
    for event in events:
        replayed.add(event)
    return replayed


def rows(replayed: Replay) -> list[tuple[str, str, str, str, int]]:
    """Each row: what changes, of what, by which Role, for whom, in how many events."""
    return [
        (row.change.value, row.access or row.kind.value, row.role, row.who, count.events)
        for row, count in replayed.report.sorted_rows()
    ]


def role(name: str, *policies: str, **claims: object) -> Role:
    made = pinned(name, GITHUB, **{**OCTO, **claims})
    return replace(made, policies=policies or ("deploy",))


def granting(*roles: Role, policies: Iterable[Policy] = (DEPLOY, LOOK)) -> Catalog:
    return catalog(*roles, policies=policies)


@pytest.fixture
def broker(tmp_path: Path) -> Front:
    return Front(tmp_path, audit_claims="all", functions="authorize")


MAIN = {"ref": "refs/heads/main"}


class TestExchanges:
    def test_a_role_that_is_gone_loses_and_says_why(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        replayed = decided(events_of(broker), granting(role("main", ref="refs/heads/other")))
        assert rows(replayed) == [("loses", "exchange", "main", "octo-org/octo-repo", 1)]
        (row,) = replayed.report.rows
        assert (row.refused, row.why, row.policies) == (True, "no_role_admits", ("deploy",))
        assert replayed.report.loss

    def test_a_role_that_admits_at_last_is_a_gain(self, broker: Front) -> None:
        broker.source.catalog = granting(role("other", ref="refs/heads/other"))
        broker.exchange()
        replayed = decided(events_of(broker), granting(role("main")))
        assert rows(replayed) == [("gains", "exchange", "main", "octo-org/octo-repo", 1)]
        assert not replayed.report.loss

    def test_what_is_refused_before_and_after_is_counted_alone(self, broker: Front) -> None:
        broker.source.catalog = granting(role("other", ref="refs/heads/other"))
        broker.exchange()
        replayed = decided(events_of(broker), broker.source.catalog)
        assert replayed.report.totals[Kind.EXCHANGE].stay_refused == 1
        assert rows(replayed) == []

    def test_a_role_that_loses_its_policy_is_a_loss_though_the_exchange_is_granted(
        self, broker: Front
    ) -> None:
        broker.source.catalog = granting(role("main", "deploy", "look"))
        broker.exchange()
        replayed = decided(events_of(broker), granting(role("main", "look")))
        (row,) = replayed.report.rows
        assert (row.change, row.refused, row.policies) == (Change.LOSES, False, ("deploy",))
        assert replayed.report.loss

    def test_a_role_with_one_more_policy_gains_it(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main", "look"))
        broker.exchange()
        replayed = decided(events_of(broker), granting(role("main", "deploy", "look")))
        (row,) = replayed.report.rows
        assert (row.change, row.policies) == (Change.GAINS, ("deploy",))

    def test_a_renamed_role_loses_nothing_that_counts(self, broker: Front) -> None:
        broker.source.catalog = granting(role("old"))
        broker.exchange()
        replayed = decided(events_of(broker), granting(role("new")))
        assert [row[:3] for row in rows(replayed)] == [
            ("loses", "exchange", "old"),
            ("gains", "exchange", "new"),
        ]
        assert not replayed.report.loss

    def test_to_lose_a_policy_that_only_denies_is_no_loss(self, broker: Front) -> None:
        guard = policy("guard", {"effect": "Deny", "action": ["*"], "resource": ["prod:*"]})
        policies = (DEPLOY, guard)
        broker.source.catalog = granting(role("main", "deploy", "guard"), policies=policies)
        broker.exchange()
        replayed = decided(events_of(broker), granting(role("main"), policies=policies))
        assert [row.policies for row in replayed.report.rows] == [("guard",)]
        assert not replayed.report.loss

    def test_roles_that_the_job_did_not_ask_for_are_no_gain(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"), role("reader", "look"))
        broker.exchange(role="reader")
        assert rows(decided(events_of(broker), broker.source.catalog)) == [
            ("keeps", "exchange", "reader", "octo-org/octo-repo", 1)
        ]

    def test_a_role_that_was_asked_for_in_vain_is_a_gain_once_it_admits(
        self, broker: Front
    ) -> None:
        broker.source.catalog = granting(role("reader", "look"))
        broker.exchange(role="main")
        replayed = decided(events_of(broker), granting(role("main"), role("reader", "look")))
        assert rows(replayed) == [("gains", "exchange", "main", "octo-org/octo-repo", 1)]

    def test_names_that_look_like_tokens_in_its_event_are_not_guessed(self, broker: Front) -> None:
        name = "newkafka-consumer-service"
        broker.source.catalog = granting(role(name))
        assert broker.exchange(role=name).status_code == 200
        assert broker.exchange(scope="function", audience=f"dev:{name}").status_code == 200
        replayed = decided(events_of(broker), broker.source.catalog)
        assert [count.events for count in replayed.report.undecided.values()] == [2]
        assert not replayed.report.loss

    def test_a_claim_whose_name_looks_like_a_token_is_not_taken_as_absent(
        self, broker: Front
    ) -> None:
        broker.source.catalog = granting(role("main", newkafka_consumer_service="x"))
        broker.exchange(broker.job(newkafka_consumer_service="x"))
        replayed = decided(events_of(broker), broker.source.catalog)
        assert replayed.report.undecided
        assert not replayed.report.loss

    def test_an_issuer_that_is_gone_loses_all(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        new = catalog(policies=(DEPLOY,), issuers=[builders.issuer(GITLAB)])
        (row,) = decided(events_of(broker), new).report.rows
        assert (row.change, row.why) == (Change.LOSES, "untrusted_issuer")

    def test_what_documents_do_not_decide_is_left_out(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        token = broker.job()
        broker.exchange(token)
        broker.exchange(token)
        replayed = decided(events_of(broker), granting())
        assert list(replayed.report.left_out) == ["already_used"]
        assert replayed.report.totals[Kind.EXCHANGE].decided == 1

    def test_old_documents_take_the_place_of_what_was_recorded(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        none = granting(role("other", ref="refs/heads/other"))
        assert decided(events_of(broker), none).report.loss
        replayed = decided(events_of(broker), none, old=none)
        assert not replayed.report.loss
        assert replayed.report.totals[Kind.EXCHANGE].stay_refused == 1


class TestShadowRoles:
    def test_they_are_told_apart_and_are_no_gain(self, broker: Front) -> None:
        broker.source.catalog = granting(role("reader", "look"))
        broker.exchange()
        shadow = replace(role("main"), shadow=True)
        new = replace(broker.source.catalog, shadow_roles=(shadow,))
        replayed = decided(events_of(broker), new)
        assert [row[:3] for row in rows(replayed)] == [
            ("shadow", "exchange", "main"),
            ("keeps", "exchange", "reader"),
        ]
        assert not replayed.report.loss

    def test_one_that_reads_a_claim_that_the_event_lacks_is_not_guessed(
        self, tmp_path: Path
    ) -> None:
        broker = Front(tmp_path, audit_claims="ci")
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        lacking, other = role("sh", actor="octocat"), role("other", repository_id="1", actor="x")
        shadows = tuple(replace(each, shadow=True) for each in (lacking, other))
        new = replace(broker.source.catalog, shadow_roles=shadows)
        replayed = decided(events_of(broker), new)
        assert [row[:3] for row in rows(replayed)] == [("keeps", "exchange", "main")]
        assert list(replayed.report.undecided) == [
            "A shadow Role may decide by a claim that the event does not keep: actor."
        ]

    def test_one_that_reads_a_claim_that_was_cut_is_not_said_to_admit(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        (event,) = events_of(broker)
        shadow = replace(role("sh", **MAIN), shadow=True)
        new = replace(broker.source.catalog, shadow_roles=(shadow,))
        assert "shadow" in [row[0] for row in rows(decided([event], new))]
        replayed = decided([{**event, "claims_cut": ["ref"]}], new)
        assert "shadow" not in [row[0] for row in rows(replayed)]
        assert replayed.report.undecided

    def test_one_that_becomes_live_is_a_gain_that_says_so(self, broker: Front) -> None:
        shadow = replace(role("main"), shadow=True)
        broker.source.catalog = replace(granting(), shadow_roles=(shadow,))
        broker.exchange()
        (row,) = decided(events_of(broker), granting(role("main"))).report.rows
        assert (row.change, row.why, row.shadow) == (Change.GAINS, "no_role_admits", True)

    def test_a_role_that_becomes_one_is_a_loss(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        new = replace(granting(), shadow_roles=(replace(role("main"), shadow=True),))
        replayed = decided(events_of(broker), new)
        assert [row[0] for row in rows(replayed)] == ["loses", "shadow"]
        assert replayed.report.loss


class TestVariables:
    OWN = policy(
        "deploy", {"action": ["Function:*"], "resource": ["team-${jwt:repository_owner_id}:*"]}
    )

    def test_a_request_is_decided_by_the_claim_of_its_exchange(self, tmp_path: Path) -> None:
        broker = Front(tmp_path)
        broker.source.catalog = granting(role("main"))
        broker.call("PUT", "/system/functions", broker.access_token(), json=DEPLOYMENT)
        events = events_of(broker)
        own = granting(role("main"), policies=[self.OWN])
        assert decided(events, own).report.totals[Kind.REQUEST].lose == 1
        events[1]["resource"] = "team-13420041:figlet"
        assert decided(events, own).report.totals[Kind.REQUEST].keep == 1

    @pytest.mark.parametrize(
        ("resource", "undecided"),
        [
            pytest.param("team-1:figlet", True, id="it may be this one"),
            pytest.param("dev:figlet", False, id="it cannot be this one"),
        ],
    )
    def test_without_the_exchange_it_is_not_guessed(
        self, tmp_path: Path, resource: str, undecided: bool
    ) -> None:
        broker = Front(tmp_path)
        broker.source.catalog = granting(role("main"))
        broker.call("PUT", "/system/functions", broker.access_token(), json=DEPLOYMENT)
        (event,) = events_of(broker)[1:]
        own = granting(role("main"), policies=[self.OWN])
        replayed = decided([{**event, "resource": resource}], own)
        assert bool(replayed.report.undecided) is undecided
        assert replayed.report.loss is not undecided

    def test_an_unknown_claim_of_a_deny_may_take_all_that_it_could(self, tmp_path: Path) -> None:
        broker = Front(tmp_path)
        broker.source.catalog = granting(role("main"))
        broker.call("PUT", "/system/functions", broker.access_token(), json=DEPLOYMENT)
        (event,) = events_of(broker)[1:]
        deny = {"effect": "Deny", "action": ["*"], "resource": ["team-${jwt:ref}:*"]}
        everything = {"action": ["*"], "resource": ["*"]}
        new = granting(role("main"), policies=[policy("deploy", everything, deny)])
        assert decided([event], new).report.undecided, "it denies all if the claim is absent"


class TestFunctionTokens:
    @pytest.fixture
    def broker(self, broker: Front) -> Front:
        broker.source.catalog = granting(role("main"))
        return broker

    @pytest.mark.parametrize("audience", ["dev:figlet", None])
    def test_a_statement_that_is_gone_refuses_them(
        self, broker: Front, audience: str | None
    ) -> None:
        assert broker.exchange(scope="function", audience=audience).status_code == 200
        events = events_of(broker)
        assert events[0]["scope"] == "function"
        assert events[0].get("audience", []) == [audience] * (audience is not None)
        reads = policy("deploy", {"action": ["Function:Get"], "resource": ["dev:*"]})
        assert not decided(events, broker.source.catalog).report.loss
        (row,) = decided(events, granting(role("main"), policies=[reads])).report.rows
        assert row.why == ("invalid_target" if audience else "invalid_scope")

    def test_one_that_was_refused_gains(self, broker: Front) -> None:
        assert broker.exchange(scope="function", audience="prod:figlet").status_code == 400
        everywhere = policy("deploy", {"action": ["Function:*"], "resource": ["*"]})
        replayed = decided(events_of(broker), granting(role("main"), policies=[everywhere]))
        assert [row[0] for row in rows(replayed)] == ["gains"]

    def test_a_variable_on_a_claim_that_the_event_lacks_is_not_guessed(
        self, tmp_path: Path
    ) -> None:
        """With any value it might meet the Deny, and with its own it does not."""
        broker = Front(tmp_path, audit_claims="ci")
        own = policy(
            "deploy",
            {"action": ["Function:Invoke"], "resource": ["dev:${jwt:actor}"]},
            {"effect": "Deny", "action": ["Function:Invoke"], "resource": ["dev:vault"]},
        )
        broker.source.catalog = granting(role("main"), policies=[own])
        assert broker.exchange(scope="function").status_code == 200
        replayed = decided(events_of(broker), broker.source.catalog)
        assert list(replayed.report.undecided) == [
            "A Role or statement that may decide reads a claim that the event does not keep: actor."
        ]
        assert not replayed.report.loss

    def test_a_call_with_one_is_decided_by_the_exchange_of_its_access_token(
        self, broker: Front
    ) -> None:
        access = broker.access_token()
        traded = broker.exchange(access, scope="function", audience="dev:figlet")
        broker.call("POST", "/function/figlet.dev", traded.json()["access_token"])
        replayed = decided(events_of(broker), granting(role("main", repository_id="1")))
        assert rows(replayed) == [
            ("loses", "exchange", "main", "octo-org/octo-repo", 1),
            ("loses", "Function:Invoke=dev:figlet", "main", "octo-org/octo-repo", 1),
        ]
        assert list(replayed.report.left_out) == ["an access token became a function token"]


DEPLOYMENT = {"service": "figlet", "image": "figlet:2", "namespace": "dev"}
UPDATE = "Function:Update=dev:figlet"


class TestRequests:
    @pytest.fixture
    def broker(self, tmp_path: Path) -> Front:
        broker = Front(tmp_path)
        broker.source.catalog = granting(role("main"))
        broker.call("PUT", "/system/functions", broker.access_token(), json=DEPLOYMENT)
        return broker

    def test_a_statement_that_is_narrower_denies_them(self, broker: Front) -> None:
        reads = policy("deploy", {"action": ["Function:Get"], "resource": ["dev:*"]})
        replayed = decided(events_of(broker), granting(role("main"), policies=[reads]))
        assert rows(replayed) == [
            ("loses", UPDATE, "main", "octo-org/octo-repo", 1),
            ("keeps", "exchange", "main", "octo-org/octo-repo", 1),
        ]
        assert replayed.report.loss

    def test_a_deny_by_a_claim_is_decided_by_the_claims_of_the_exchange(
        self, broker: Front
    ) -> None:
        for ref, lost in (("refs/heads/main", True), ("refs/heads/other", False)):
            deny = {
                "effect": "Deny",
                "action": ["Function:Update"],
                "resource": ["*"],
                "condition": {"StringEqual": {"jwt:ref": ref}},
            }
            guarded = policy("deploy", {"action": ["*"], "resource": ["*"]}, deny)
            replayed = decided(events_of(broker), granting(role("main"), policies=[guarded]))
            assert replayed.report.loss is lost

    def test_one_that_was_denied_gains(self, broker: Front) -> None:
        broker.journal.events.clear()
        token = broker.access_token()
        body = {**DEPLOYMENT, "namespace": "prod"}
        assert broker.call("PUT", "/system/functions", token, json=body).status_code == 403
        everywhere = policy("deploy", {"action": ["Function:*"], "resource": ["*"]})
        replayed = decided(events_of(broker), granting(role("main"), policies=[everywhere]))
        assert ("gains", "Function:Update=prod:figlet", "main") in [r[:3] for r in rows(replayed)]
        same = decided(events_of(broker), broker.source.catalog)
        assert same.report.totals[Kind.REQUEST].stay_refused == 1

    def test_without_their_exchange_the_roles_that_they_name_decide(self, broker: Front) -> None:
        (request,) = events_of(broker)[1:]
        for new, lost in (
            (granting(role("main")), False),
            (granting(role("main", "look")), True),
            (granting(role("other")), True),
        ):
            replayed = decided([request], new)
            assert (replayed.by_roles, replayed.report.loss) == (1, lost)

    def test_without_their_exchange_a_condition_on_a_claim_is_not_guessed(
        self, broker: Front
    ) -> None:
        (request,) = events_of(broker)[1:]
        on_ref = {
            "action": ["Function:*"],
            "resource": ["dev:*"],
            "condition": {"StringEqual": {"jwt:ref": "refs/heads/main"}},
        }
        replayed = decided([request], granting(role("main"), policies=[policy("deploy", on_ref)]))
        assert list(replayed.report.undecided) == [
            "A Role or statement that may decide reads a claim that the event does not keep: ref."
        ]
        assert not replayed.report.loss

    def test_a_condition_that_cannot_matter_needs_no_claim(self, broker: Front) -> None:
        (request,) = events_of(broker)[1:]
        besides = {
            "action": ["Function:*"],
            "resource": ["dev:*"],
            "condition": {"StringEqual": {"jwt:ref": "refs/heads/main"}},
        }
        both = policy("deploy", {"action": ["Function:*"], "resource": ["dev:*"]}, besides)
        replayed = decided([request], granting(role("main"), policies=[both]))
        assert replayed.report.totals[Kind.REQUEST].keep == 1

    def test_without_their_exchange_what_another_role_denies_stays_denied(
        self, tmp_path: Path
    ) -> None:
        broker = Front(tmp_path)
        no = policy("guard", {"effect": "Deny", "action": ["*"], "resource": ["dev:figlet"]})
        roles, policies = (role("main"), role("guarded", "guard")), (DEPLOY, no)
        broker.source.catalog = granting(*roles, policies=policies)
        token = broker.access_token(role="main")
        assert broker.call("PUT", "/system/functions", token, json=DEPLOYMENT).status_code == 403
        (request,) = events_of(broker)[1:]
        replayed = decided([request], broker.source.catalog)
        assert replayed.report.totals[Kind.REQUEST].stay_refused == 1

    def test_what_an_upstream_said_of_the_request_is_no_decision(self, broker: Front) -> None:
        (request,) = events_of(broker)[1:]
        said = {"custom_message": "Function:Update on dev:figlet went wrong.", "response_code": 502}
        replayed = decided([{**request, **said}], granting(role("main")))
        assert replayed.report.totals[Kind.REQUEST].keep == 1

    def test_the_answer_403_of_an_upstream_is_no_denial(self, broker: Front) -> None:
        (request,) = events_of(broker)[1:]
        replayed = decided([{**request, "response_code": 403}], granting(role("main")))
        assert replayed.report.totals[Kind.REQUEST].keep == 1

    def test_one_that_was_denied_is_known_though_its_name_looks_like_a_token(
        self, broker: Front
    ) -> None:
        broker.journal.events.clear()
        body = {**DEPLOYMENT, "namespace": "prod", "service": "newkafka-consumer-service"}
        token = broker.access_token()
        assert broker.call("PUT", "/system/functions", token, json=body).status_code == 403
        replayed = decided(events_of(broker), broker.source.catalog)
        assert replayed.report.totals[Kind.REQUEST].stay_refused == 1
        assert not replayed.report.loss

    def test_one_whose_token_ended_before_the_decision_was_not_allowed(self, broker: Front) -> None:
        (request,) = events_of(broker)[1:]
        ended = {**request, "response_code": 401, "reason": "expired"}
        replayed = decided([ended], granting(role("main", "look")))
        assert list(replayed.report.left_out) == ["expired"]
        assert not replayed.report.loss

    def test_a_call_that_its_function_token_was_not_for_is_no_gain(self, tmp_path: Path) -> None:
        broker = Front(
            tmp_path, audit_claims="all", functions="authorize", audit_verbs=EVERY_METHOD
        )
        broker.source.catalog = granting(role("main"))
        traded = broker.exchange(broker.access_token(), scope="function", audience="dev:figlet")
        token = traded.json()["access_token"]
        assert broker.call("POST", "/function/other.dev", token).status_code == 403
        replayed = decided(events_of(broker), broker.source.catalog)
        assert "not what its function token is for" in replayed.report.left_out
        assert "gains" not in [row[0] for row in rows(replayed)]


class TestUndecided:
    def test_a_trail_without_claims_says_so(self, tmp_path: Path) -> None:
        broker = Front(tmp_path, audit_claims="none")
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        replayed = decided(events_of(broker), granting())
        assert list(replayed.report.undecided) == [
            "The event keeps no claims of the token (setting audit-claims)."
        ]
        assert not replayed.report.loss

    def test_a_role_that_reads_a_claim_that_is_left_out(self, tmp_path: Path) -> None:
        broker = Front(tmp_path, audit_claims="ci")
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        events = events_of(broker)
        assert "actor" not in events[0]["claims"]
        by_actor = granting(role("main", actor="octocat"))
        assert list(decided(events, by_actor).report.undecided) == [
            "A Role or statement that may decide reads a claim that the event does not keep: actor."
        ]
        elsewhere = granting(role("main", actor="octocat", ref="refs/heads/other"))
        assert decided(events, elsewhere).report.loss, "whoever the actor was"

    def test_a_claim_that_was_too_large(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        broker.exchange(broker.job(more="x" * 9000))
        events = events_of(broker)
        assert events[0]["claims_cut"] == ["more"]
        assert decided(events, broker.source.catalog).report.totals[Kind.EXCHANGE].keep == 1
        reading = granting(role("main", more="x"))
        assert decided(events, reading).report.undecided
        assert not decided(events, reading).report.loss

    def test_a_demand_of_the_provider_on_a_claim_that_was_cut(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        (event,) = events_of(broker)
        del event["claims"]["event_name"]
        event["claims_cut"] = ["event_name"]
        replayed = decided([event], broker.source.catalog)
        assert list(replayed.report.undecided) == [
            "Claims that decide were too large for the event, or held a token."
        ]

    def test_a_list_of_roles_that_was_cut(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        broker.exchange()
        (event,) = events_of(broker)
        event["roles"] = ["main", "(and 40 more)"]
        assert decided([event], broker.source.catalog).report.undecided
        assert not decided([event], broker.source.catalog, broker.source.catalog).report.undecided

    def test_older_events_do_not_gain_roles_that_they_may_not_have_asked_for(
        self, broker: Front
    ) -> None:
        broker.source.catalog = granting(role("main"), role("reader", "look"))
        broker.exchange(role="reader")
        (event,) = events_of(broker)
        del event["roles_asked"], event["issued_token_sha256"]
        assert [row[:3] for row in rows(decided([event], broker.source.catalog))] == [
            ("keeps", "exchange", "reader")
        ]
        renamed = granting(role("main"), role("readers", "look"))
        assert ("loses", "exchange", "reader") in [r[:3] for r in rows(decided([event], renamed))]

    def test_an_older_refusal_of_a_role_does_not_say_which(self, broker: Front) -> None:
        broker.source.catalog = granting(role("main"))
        broker.exchange(role="other")
        (event,) = events_of(broker)
        assert event["roles_asked"] == ["other"]
        del event["roles_asked"]
        assert decided([event], broker.source.catalog).report.undecided


# Generated documents and tokens, through the real exchange and the real journal


def journalled(broker: InProcess, folder: Path) -> list[Json | None]:
    """The events that *broker* recorded, written to journals at *folder* and read from them."""
    events, broker.journal.events = broker.journal.events, []

    async def written() -> None:
        owed = FileJournal(folder, SIZE, sign=sign)
        outsiders = FileJournal(folder / OUTSIDERS, SIZE, sign=sign, owed=False)
        for event in events:
            await (owed if event.owed else outsiders).record(event)
        await asyncio.gather(owed.aclose(), outsiders.aclose())

    asyncio.run(written())
    return list(in_order(parts(folder)))


def test_a_token_of_one_worker_is_known_where_another_took_it(tmp_path: Path) -> None:
    broker = Front(tmp_path)
    broker.source.catalog = granting(role("main"))
    token = broker.access_token()
    broker.clock.advance(1)
    broker.call("PUT", "/system/functions", token, json=DEPLOYMENT)
    exchange, request = broker.journal.events

    async def written() -> None:
        workers = [FileJournal(tmp_path / "audit", SIZE, sign=sign) for _ in range(2)]
        await workers[0].record(request)
        await workers[1].record(exchange)
        await asyncio.gather(*(worker.aclose() for worker in workers))

    asyncio.run(written())
    replayed = decided(in_order(parts(tmp_path / "audit")), granting(role("main")))
    assert replayed.report.totals[Kind.REQUEST].keep == 1
    assert replayed.by_roles == 0


SAMPLES = {GITHUB: "github-push-main", GITLAB: "gitlab-branch-main", GENERIC: "keycloak-user"}


def life(broker: Front, rng: Random) -> Catalog:
    """Serve generated documents for generated tokens, and return the documents."""
    tokens = [generators.claims(rng) for _ in range(4)]
    names = [f"p{number}" for number in range(3)]
    policies = [
        builders.policy(name, *generators.statements(rng, rng.choice(tokens), ["r0", "r1"]))
        for name in names
    ]
    specs = {f"r{n}": generators.role(rng, rng.choice(tokens), names) for n in range(4)}
    specs |= {f"r{n}": generators.admitting_role(rng, tokens[n - 4], names) for n in (4, 5, 6)}
    roles = [builders.role(name, **spec) for name, spec in specs.items()]
    broker.source.catalog = catalog(*roles, policies=policies)
    for claims in (*tokens, *rng.choices(tokens, k=3)):
        broker.clock.advance(1)
        told = {name: value for name, value in claims.items() if name != "iss"}
        if rng.random() < 0.6:  # as the provider sends them
            told = {k: v for k, v in told.items() if k not in {"sub", "project_id", "event_name"}}
        asked: dict[str, Any] = {}
        if rng.random() < 0.3:
            asked["role"] = rng.sample(sorted(specs), k=rng.choice([1, 1, 2]))
        if rng.random() < 0.3:
            asked["scope"] = "function"
            if rng.random() < 0.5:
                asked["audience"] = "dev:fn"
        answer = broker.exchange(broker.job(SAMPLES[claims["iss"]], **told), **asked)
        if answer.status_code == 200:
            use(broker, rng, answer.json()["access_token"])
    return broker.source.catalog


def use(broker: Front, rng: Random, token: str) -> None:
    """Make requests with *token*."""
    for _ in range(2):
        method, target = rng.choice(
            [
                ("GET", "/system/functions?namespace=dev"),
                ("GET", "/system/namespaces"),
                ("GET", "/system/info"),
                ("DELETE", "/system/functions"),
                ("POST", "/function/fn.dev"),
            ]
        )
        body = {"json": {"functionName": "fn", "namespace": "dev"}} if method == "DELETE" else {}
        broker.call(method, target, token, **body)


EVERY_METHOD = "GET,POST,PUT,DELETE"


@pytest.mark.parametrize("seed", range(8))
def test_the_same_documents_change_nothing(seed: int, tmp_path: Path) -> None:
    broker = Front(tmp_path, audit_claims="all", functions="authorize", audit_verbs=EVERY_METHOD)
    documents = life(broker, Random(seed))  # noqa: S311  no secret
    events = journalled(broker, tmp_path / "audit")
    for replayed in (decided(events, documents), decided(events, documents, documents)):
        assert {row[0] for row in rows(replayed)} <= {"keeps"}, rows(replayed)
        assert not replayed.report.undecided
        assert not replayed.unreadable
        totals = replayed.report.totals
        assert sum(t.decided for t in totals.values()) + left_out(replayed) == len(events)


def left_out(replayed: Replay) -> int:
    return sum(count.events for count in replayed.report.left_out.values())


@pytest.mark.parametrize("seed", range(8))
def test_without_one_role_exactly_the_exchanges_that_it_admitted_lose(
    seed: int, tmp_path: Path
) -> None:
    broker = Front(tmp_path, audit_claims="all", functions="authorize", audit_verbs=EVERY_METHOD)
    documents = life(broker, Random(seed))  # noqa: S311  no secret
    events = journalled(broker, tmp_path / "audit")
    for gone in documents.roles:
        left = tuple(role for role in documents.roles if role is not gone)
        new = replace(documents, roles=left)
        named: set[str] = set()
        for event in events:
            assert event is not None
            found = decided([event], new, documents)
            if event["path"] == "/oauth/token" and found.report.totals[Kind.EXCHANGE].lose:
                named.add(str(event["event_id"]))
            assert not found.report.totals[Kind.EXCHANGE].gain
        admitted = {str(e["event_id"]) for e in events if e and gone.name in names_in(e)}
        assert named == admitted
        assert decided(events, new).report.totals[Kind.EXCHANGE].lose == len(admitted)


def names_in(event: Mapping[str, Any]) -> Sequence[str]:
    """The Roles that gave something in an exchange that was granted."""
    granted = event["path"] == "/oauth/token" and event["reason"] is None and "claims" in event
    return event["roles"] if granted else ()


@pytest.mark.parametrize("seed", range(4))
def test_tokens_that_look_alike_to_documents_are_decided_as_each_would_be(
    seed: int, tmp_path: Path
) -> None:
    broker = Front(tmp_path, audit_claims="all", functions="authorize")
    life(broker, Random(seed))  # noqa: S311  no secret
    events = events_of(broker)
    new = life(broker, Random(seed + 100))  # noqa: S311  no secret
    once = decided(events, new)
    alone = [decided([event], new) for event in events if event["path"] == "/oauth/token"]
    for field in ("decided", "lose", "gain", "keep", "stay_refused"):
        counts = [getattr(each.report.totals[Kind.EXCHANGE], field) for each in alone]
        assert getattr(once.report.totals[Kind.EXCHANGE], field) == sum(counts)


# The command


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    unset: dict[str, str | None] = {"FEDERATION_STATE": None, "FEDERATION_DOCUMENTS": None}
    return CliRunner().invoke(main, ["replay", *map(str, arguments)], input=stdin, env=unset)


WITHOUT_DEPLOYER = DOCUMENTS.replace("name: octo-deployer", "name: octo-deployer-2").replace(
    "jwt:ref: [refs/heads/main]", "jwt:ref: [refs/heads/never]", 1
)


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder with documents, others by which a Role admits nobody, and a trail."""
    (tmp_path / "now.yaml").write_text(DOCUMENTS)
    (tmp_path / "next.yaml").write_text(WITHOUT_DEPLOYER)
    broker = InProcess()
    for changes in ({}, {"ref": HIDDEN}, {"ref": "refs/heads/x"}):
        broker.exchange(broker.job(**changes))
    (tmp_path / "events.json").write_text(json.dumps(events_of(broker)))
    journalled(broker, tmp_path / "state" / "audit")
    return tmp_path


class TestCommand:
    def test_a_loss_is_a_table_and_exit_code_1(self, stage: Path) -> None:
        result = run("--against", stage / "next.yaml", "--state", stage / "state")
        assert result.exit_code == 1, result.output
        assert "3 exchanges decided again: 1 lose, 0 gain, 1 keep, 1 stay refused" in result.stdout
        assert "loses   octo-deployer  octo-org/octo-repo  1 exchange" in result.stdout
        assert "policies deploy" in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 120

    @pytest.mark.parametrize("columns", [80, 120])
    def test_long_names_are_cut_to_the_width_of_the_terminal(
        self, stage: Path, columns: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        events = (stage / "events.json").read_text()
        events = events.replace("octo-org/octo-repo", "octo-org/" + "long" * 40)
        events = events.replace("octo-deployer", "deployer-" + "long" * 40)
        result = run("--against", stage / "next.yaml", "--events", "-", stdin=events)
        rows = [line for line in result.stdout.splitlines() if line.endswith("exchange")]
        assert {len(row) for row in rows} == {columns}

    def test_allow_loss_is_exit_code_0(self, stage: Path) -> None:
        words = ("--against", stage / "next.yaml", "--state", stage / "state", "--allow-loss")
        assert run(*words).exit_code == 0

    def test_the_same_documents_are_exit_code_0(self, stage: Path) -> None:
        result = run("--against", stage / "now.yaml", "--state", stage / "state")
        assert result.exit_code == 0
        assert "loses" not in result.stdout

    @pytest.mark.parametrize("form", ["array", "lines", "deliveries", "pretty"])
    def test_delivered_events_are_read_from_a_file_in_any_form(
        self, stage: Path, form: str
    ) -> None:
        events = json.loads((stage / "events.json").read_text())
        written = {
            "array": json.dumps(events),
            "lines": "\n".join(map(json.dumps, events)),
            "deliveries": "\n".join(json.dumps([event]) for event in events),
            "pretty": json.dumps(events, indent=2),
        }[form]
        result = run(
            *("--against", stage / "next.yaml", "--events", "-", "--format", "json"), stdin=written
        )
        assert result.exit_code == 1
        told = json.loads(result.stdout)
        assert (told["events"], told["unreadable"], told["loss"]) == (3, 0, True)
        assert told["exchanges"] == {
            "decided": 3,
            "lose": 1,
            "gain": 0,
            "keep": 1,
            "stay_refused": 1,
        }
        (lost,) = [row for row in told["changes"] if row["change"] == "loses"]
        sample = lost.pop("sample")
        assert sample["event_id"] == events[0]["event_id"]
        assert lost == {
            "change": "loses",
            "kind": "exchange",
            "role": "octo-deployer",
            "who": "octo-org/octo-repo",
            "access": None,
            "refused": False,
            "why": None,
            "policies": ["deploy"],
            "shadow": False,
            "events": 1,
        }

    def test_events_that_come_twice_count_once(self, stage: Path) -> None:
        twice = (stage / "events.json").read_text() * 2
        result = run("--against", stage / "now.yaml", "--events", "-", stdin=twice)
        assert "3 exchanges decided again" in result.stdout
        assert "3 events came more than once" in result.stdout

    def test_lines_that_are_no_events_are_counted(self, stage: Path) -> None:
        lines = '{"a": 1}\n{"broken": \nnonsense\n' + (stage / "events.json").read_text()
        result = run("--against", stage / "now.yaml", "--events", "-", stdin=lines)
        assert result.exit_code == 0
        assert "3 exchanges decided again" in result.stdout
        assert "3 lines could not be read as events" in result.stdout

    @pytest.mark.parametrize("form", ["text", "json"])
    def test_a_file_without_a_single_event_is_no_success(self, stage: Path, form: str) -> None:
        words = ("--events", "-", "--format", form)
        result = run("--against", stage / "now.yaml", *words, stdin="these are\nno events\n")
        assert result.exit_code == 1
        assert "Error: nothing that was read is an event" in result.stderr

    def test_since_leaves_out_what_is_older(self, stage: Path) -> None:
        events = json.loads((stage / "events.json").read_text())
        now = datetime.now(UTC)
        for event, days in zip(events, (1, 20, 40), strict=True):
            event["time"] = (now - timedelta(days=days)).isoformat().replace("+00:00", "Z")
        for since, count in (("30d", 2), ("36h", 1), (now.isoformat(), 0), ("2020-01-01", 3)):
            words = ("--events", "-", "--since", since, "--format", "json")
            result = run("--against", stage / "now.yaml", *words, stdin=json.dumps(events))
            assert json.loads(result.stdout)["events"] == count

    def test_a_trail_with_nothing_to_decide_again_says_so(self, stage: Path) -> None:
        result = run("--against", stage / "next.yaml", "--events", "-", stdin="")
        assert result.exit_code == 0
        assert result.stdout == "There are no events.\n\nNothing could be decided again.\n"

    def test_a_renamed_role_loses_and_gains_no_policy(self, stage: Path) -> None:
        renamed = DOCUMENTS.replace("name: octo-deployer", "name: renamed")
        (stage / "renamed.yaml").write_text(renamed)
        result = run("--against", stage / "renamed.yaml", "--events", stage / "events.json")
        assert result.exit_code == 0
        who = "octo-org/octo-repo  1 exchange"
        assert f"octo-deployer  {who}\n        no policy is lost: other" in result.stdout
        assert f"renamed  {who}\n        no policy is new: other" in result.stdout

    def test_old_documents_are_compared_with(self, stage: Path) -> None:
        words = ("--documents", stage / "next.yaml", "--state", stage / "state")
        assert run("--against", stage / "next.yaml", *words).exit_code == 0
        assert run("--against", stage / "now.yaml", *words).exit_code == 0, "a gain"

    @pytest.mark.parametrize(
        "words",
        [
            pytest.param([], id="no documents"),
            pytest.param(["--against", "now.yaml", "--since", "soon"], id="no time"),
            pytest.param(["--against", "now.yaml", "--state", ".", "--events", "-"], id="both"),
            pytest.param(["--against", "none.yaml"], id="a file that is not there"),
        ],
    )
    def test_wrong_use_is_exit_code_2(
        self, stage: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(stage)
        assert run(*words).exit_code == 2

    def test_documents_with_errors_are_printed(self, stage: Path) -> None:
        (stage / "bad.yaml").write_text("kind: Nothing\n")
        result = run("--against", stage / "bad.yaml", "--state", stage / "state")
        assert result.exit_code == 1
        assert "bad.yaml" in result.stderr
