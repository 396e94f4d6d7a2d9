"""A shadow Role is evaluated and recorded, shown to operators, and changes nothing that is decided."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.audit.event import Event
from federation.audit.journal import FileJournal
from federation.audit.recorded import may_name_shadow_role
from federation.claims import Claims, UnverifiedClaims
from federation.cli import main
from federation.demo.issuer import LocalIssuer
from federation.documents.assemble import Assembled, assemble
from federation.documents.catalog import Catalog
from federation.documents.listing import listing
from federation.documents.model import Role
from federation.documents.parse import parse
from federation.errors import Refusal
from federation.explained import explain_claims
from federation.policy.permissions import Access
from federation.policy.roles import admit, shadow_admission
from federation.policy.who_can import what_can, who_can
from federation.server.metrics import Metrics
from tests.harness import builders, documents, generators, objects
from tests.harness.broker import (
    DOCUMENTS,
    HIDDEN,
    InProcess,
    catalog_of,
    local_issuer,
    said,
    started,
)
from tests.harness.builders import AUDIENCE, GITHUB, NOW
from tests.harness.generators import PROVIDERS, Plain
from tests.harness.journal_writer import SIZE, sign
from tests.harness.objects import Namespace
from tests.harness.process import until
from tests.test_metrics import status_of, value
from tests.test_one_bad_object import allowed, anyhow, world

SHADOW = f"""
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: release}}
spec:
  statement:
    - {{sid: release, effect: Allow, action: ["Function:Update"], resource: ["prod:*"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: octo-next}}
spec:
  effect: Shadow
  policy: [release, deploy]
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:repository: [octo-org/octo-repo]
"""
WRONG_REF = "refs/heads/feature"
"""No Role that admits has it; octo-next would admit it."""
COUNTED = "shadow_role_admissions_total"

examples = settings(max_examples=40, deadline=None, derandomize=True, database=None)
randoms = st.randoms(use_true_random=False)


def assembled(text: str) -> Assembled:
    return assemble([parse("documents.yaml", text.encode())])


def with_shadow(**settings_of: Any) -> InProcess:
    return InProcess(DOCUMENTS + SHADOW, **settings_of)


def event_of(broker: InProcess) -> Event:
    (event,) = broker.journal.events
    return event


# The exchange


def test_an_exchange_that_other_roles_admit_is_the_same_and_names_it() -> None:
    broker = with_shadow()
    claims = said(broker.access_token())
    assert claims["role"] == ["octo-deployer", "octo-invoker"]
    assert claims["policy"] == ["deploy", "invoke", "look"]
    event = event_of(broker)
    assert event.roles == ("octo-deployer", "octo-invoker")
    assert event.shadow_roles == ("octo-next",)
    assert event.shadow_policies == ("release", "deploy")


def test_one_that_only_a_shadow_role_would_admit_is_refused_and_names_it() -> None:
    broker = with_shadow()
    answer = broker.exchange(broker.job(ref=WRONG_REF))
    assert (answer.status_code, answer.json()["reason"]) == (400, "no_role_admits")
    event = event_of(broker)
    assert (event.roles, event.shadow_roles) == ((), ("octo-next",))
    assert event.as_json()["shadow_policies"] == ("release", "deploy")


def test_an_event_of_another_repository_names_no_shadow_role() -> None:
    broker = with_shadow()
    broker.exchange(broker.job(repository="octo-org/other"))
    assert "shadow_roles" not in event_of(broker).as_json()


def test_what_the_situation_demands_holds_for_a_shadow_role_too() -> None:
    broker = with_shadow()
    broker.exchange(broker.job(event_name="pull_request_target"))
    event = event_of(broker)
    assert (event.reason, event.shadow_roles) == ("event_not_allowed", ())


def test_the_default_effect_admits() -> None:
    catalog = catalog_of(DOCUMENTS + SHADOW.replace("Shadow", "Admit"))
    unsaid = catalog_of(DOCUMENTS + SHADOW.replace("  effect: Shadow\n", ""))
    assert catalog.roles == unsaid.roles
    assert "octo-next" in [role.name for role in catalog.roles]
    assert catalog.shadow_roles == ()


@pytest.mark.parametrize("written", ["shadow", "Watch", "[Shadow]", "true", "1"])
def test_an_effect_that_is_none_is_an_error(written: str) -> None:
    found = assembled(DOCUMENTS + SHADOW.replace("Shadow", written))
    assert found.catalog is None
    assert {problem.field for problem in found.problems if problem.name == "octo-next"} == {
        "effect"
    }


def test_the_trust_rules_hold_for_a_shadow_role_since_it_is_meant_to_admit() -> None:
    everybody = SHADOW.replace("jwt:repository_owner_id", "jwt:actor_id")
    everybody = everybody.replace("jwt:repository:", "jwt:workflow:")
    found = assembled(DOCUMENTS + everybody)
    codes = {problem.code for problem in found.problems if problem.name == "octo-next"}
    assert found.catalog is None
    assert "T002" in codes


def test_a_policy_that_it_names_must_be_there() -> None:
    found = assembled(DOCUMENTS + SHADOW.replace("[release, deploy]", "[release, none]"))
    assert found.catalog is None


def test_a_policy_that_only_it_names_is_told_and_is_no_warning() -> None:
    found = assembled(DOCUMENTS + SHADOW)
    assert "W109" not in {problem.code for problem in found.problems}
    assert found.notes == (
        "shadow Roles, which admit nobody: octo-next",
        "Policies that only shadow Roles name: release",
    )
    assert assembled(DOCUMENTS).notes == ()


# It changes nothing


def answers(catalog: Catalog, tokens: list[Plain], names: list[str]) -> list[object]:
    """What each token gets, for each choice of Roles: an admission, or all of a refusal."""
    found: list[object] = []
    for token in tokens:
        issuer = catalog.issuers[token["iss"]]
        for only in ((), *((name,) for name in names)):
            try:
                admission = admit(catalog, issuer, Claims(token), only)
                found.append((admission.roles, admission.denying, admission.policies))
            except Refusal as refusal:
                found.append((refusal.reason, refusal.public, refusal.evidence))
    return found


def generated(rng: Random) -> tuple[list[Role], list[Role], list[Plain]]:
    """Roles, shadow Roles, and tokens that they may admit."""
    tokens = [generators.claims(rng) for _ in range(3)]
    specs = [generators.role(rng, rng.choice(tokens), ["p", "q"]) for _ in range(6)]
    roles = [builders.role(f"r{number}", **spec) for number, spec in enumerate(specs)]
    chosen = set(rng.sample(range(6), k=3))
    shadow = [replace(role, shadow=True) for n, role in enumerate(roles) if n in chosen]
    return [role for n, role in enumerate(roles) if n not in chosen], shadow, tokens


def checked(rng: Random) -> Counter[str]:
    """Compare a catalog with shadow Roles to one without them, and to one in which they admit."""
    counts: Counter[str] = Counter()
    roles, shadow, tokens = generated(rng)
    without = builders.catalog(*roles)
    catalog = replace(without, shadow_roles=tuple(shadow), before=None)
    live = replace(
        without, roles=tuple(replace(role, shadow=False) for role in shadow), before=None
    )
    names = [role.name for role in (*roles, *shadow)]
    assert answers(catalog, tokens, names) == answers(without, tokens, names)
    for token in tokens:
        issuer, claims = catalog.issuers[token["iss"]], Claims(token)
        told = shadow_admission(catalog, issuer, claims)
        try:
            admission = admit(live, issuer, claims)
            expected = tuple(role.name for role in admission.roles), admission.policies
        except Refusal:
            expected = (), ()
        assert told == expected, (token, shadow, PROVIDERS)
        counts["would admit" if told.roles else "would not"] += 1
    return counts


@given(randoms)
@examples
def test_every_answer_is_as_without_it_and_the_record_is_as_if_it_admitted(rng: Random) -> None:
    checked(rng)


def test_the_generated_sets_show_both() -> None:
    counts: Counter[str] = Counter()
    for seed in range(40):
        counts += checked(Random(seed))  # noqa: S311  no secret
    assert min(counts["would admit"], counts["would not"]) >= 10, counts


def test_a_catalog_takes_no_shadow_role_for_one_that_admits() -> None:
    role = replace(builders.pinned(repository_id="1"), shadow=True)
    with pytest.raises(ValueError, match="shadow"):
        builders.catalog(role)
    with pytest.raises(ValueError, match="shadow"):
        Catalog(refusing=(role,))


def test_of_many_shadow_roles_a_token_is_compared_with_few() -> None:
    shadow = [
        replace(builders.pinned(f"r{n}", repository_id=str(n)), shadow=True) for n in range(2000)
    ]
    catalog = replace(builders.catalog(), shadow_roles=tuple(shadow), before=None)
    claims = builders.good(repository_id="77")
    assert [role.name for role in catalog.shadow_candidates(claims)] == ["r77"]
    assert list(catalog.candidates(claims)) == []


def test_the_event_of_very_many_is_bounded() -> None:
    broker = with_shadow()
    (role,) = broker.source.catalog.shadow_roles
    many = tuple(
        replace(role, name=f"shadow-role-{number}", policies=(f"policy-{number}",))
        for number in range(3000)
    )
    broker.source.catalog = replace(broker.source.catalog, shadow_roles=many, before=None)
    broker.access_token()
    written = event_of(broker).as_json()
    for member in ("shadow_roles", "shadow_policies"):
        assert len(json.dumps(written[member])) <= 1200
        assert str(written[member]).endswith("more)')")


# Metrics


def test_it_is_counted_by_role() -> None:
    metrics = Metrics()
    broker = with_shadow(metrics=metrics)
    broker.access_token()
    broker.exchange(broker.job(ref=WRONG_REF))
    broker.exchange(broker.job(repository="octo-org/other"))
    assert value(metrics, COUNTED, role="octo-next") == 2


def test_one_that_nobody_has_needed_is_exposed_as_zero() -> None:
    metrics = Metrics()
    metrics.set_gauges(status_of(DOCUMENTS + SHADOW))
    assert value(metrics, COUNTED, role="octo-next") == 0
    assert value(metrics, "catalog_documents", kind="Role") == 7


def test_the_number_of_its_series_is_bounded() -> None:
    metrics = Metrics()
    for first in range(0, 3000, 100):  # documents that change all the time
        metrics.shadow_admitted([f"r{number}" for number in range(first, first + 100)])
    metrics.shadow_admitted(["r0"])
    assert value(metrics, COUNTED, role="r0") == 2
    assert value(metrics, COUNTED, role="r2999") is None
    assert value(metrics, COUNTED, role="(others)") == 2000


# What operators see


def test_an_explanation_shows_it_apart_and_as_not_admitting() -> None:
    catalog = catalog_of(DOCUMENTS + SHADOW)
    claims = UnverifiedClaims(builders.good(ref=WRONG_REF, aud=builders.AUDIENCE))
    update = Access.parse("Function:Update", "prod:x")
    found = explain_claims(catalog, claims, [update], now=NOW)
    assert not found.admitted
    assert not found.yes
    told = found.as_json()
    assert told["policies"] == []
    assert "octo-next" not in json.dumps(told["roles"])
    shadows: Any = told["shadow_roles"]
    assert [(s["name"], s["admitted"], s["would_admit"]) for s in shadows] == [
        ("octo-next", False, True)
    ]
    assert shadows[0]["policies"] == ["release", "deploy"]
    assert (
        "shadow_roles" not in explain_claims(catalog_of(DOCUMENTS), claims, [], now=NOW).as_json()
    )


def test_a_bad_token_would_not_be_admitted_by_it_either() -> None:
    claims = UnverifiedClaims(builders.good(ref=WRONG_REF, aud="https://elsewhere.example"))
    found = explain_claims(catalog_of(DOCUMENTS + SHADOW), claims, [], now=NOW)
    shadows: Any = found.as_json()["shadow_roles"]
    assert [shadow["would_admit"] for shadow in shadows] == [False]


def test_who_can_names_it_as_one_by_which_nobody_can() -> None:
    catalog = catalog_of(DOCUMENTS + SHADOW)
    found = who_can(catalog, Access.parse("Function:Update", "prod:x"))
    assert not found.anybody
    ways: Any = found.as_json()["roles"]
    assert [(way["name"], way["shadowed"]) for way in ways] == [("octo-next", True)]
    gives = what_can(catalog, "octo-next")
    assert not gives.anything
    assert "Role octo-next is a shadow Role: it is recorded, and admits nobody." in gives.notes


def test_its_deny_takes_nothing_from_what_others_can() -> None:
    text = SHADOW.replace("effect: Allow", "effect: Deny").replace("prod:*", "*")
    asked = Access.parse("Function:Update", "dev:x")
    found = who_can(catalog_of(DOCUMENTS + text), asked)
    before = who_can(catalog_of(DOCUMENTS), asked)
    open_ways = [way for way in found.ways if way.open]
    assert [(w.role.name, w.denied_by) for w in open_ways] == [
        (w.role.name, w.denied_by) for w in before.ways if w.open
    ]


def test_it_is_listed_with_the_documents_as_it_was_written() -> None:
    catalog = catalog_of(DOCUMENTS + SHADOW)
    (spec,) = [d["spec"] for d in listing(catalog, ()) if d["name"] == "octo-next"]
    assert isinstance(spec, dict)
    assert spec["effect"] == "Shadow"
    (other,) = [d["spec"] for d in listing(catalog, ()) if d["name"] == "octo-deployer"]
    assert isinstance(other, dict)
    assert "effect" not in other


def run(*arguments: object) -> Result:
    unset: dict[str, str | None] = {"FEDERATION_STATE": None, "FEDERATION_DOCUMENTS": None}
    return CliRunner().invoke(main, [*map(str, arguments)], env=unset)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with three events, of which a shadow Role would have admitted one and is named by two."""
    broker = with_shadow()
    broker.exchange(broker.job(repository="octo-org/other"))
    broker.exchange(broker.job(ref=WRONG_REF))
    broker.access_token()
    journal = FileJournal(tmp_path / "audit", SIZE, sign=sign)

    async def story() -> None:
        for each in broker.journal.events:
            await journal.record(each)
        await journal.aclose()

    asyncio.run(story())
    return tmp_path


def test_audit_tail_finds_the_events_that_name_one(state: Path) -> None:
    shown = run("audit", "tail", "--state", state, "--shadow", "--format", "json").stdout
    events = [json.loads(line) for line in shown.splitlines()]
    assert {event["reason"] for event in events} == {"no_role_admits", None}
    assert len(events) == 2
    both = ("--shadow", "--reason", "no_role_admits")
    assert len(run("audit", "tail", "--state", state, *both).stdout.splitlines()) == 1
    text = run("audit", "tail", "--state", state, "--shadow", "-n", 1).stdout
    assert "shadow_roles=octo-next shadow_policies=release,deploy" in text


def named(state: Path, *options: str) -> list[object]:
    """The reason of each event that `federation audit tail` shows as naming the Role *options*."""
    shown = run("audit", "tail", "--state", state, "--format", "json", *options).stdout
    return [json.loads(line)["reason"] for line in shown.splitlines()]


def test_audit_tail_finds_the_events_that_name_the_one_that_is_watched(state: Path) -> None:
    assert named(state, "--shadow-role", "octo-next") == ["no_role_admits", None]
    assert named(state, "--shadow-role", "octo-next", "-n", "1") == [None]
    assert named(state, "--shadow-role", "octo") == []
    assert named(state, "--shadow-role", "octo-deployer") == [], "it admits"


def test_the_one_that_is_watched_may_be_among_the_names_that_found_no_room(tmp_path: Path) -> None:
    broker = with_shadow()
    (role,) = broker.source.catalog.shadow_roles
    many = tuple(replace(role, name=f"shadow-role-{number}") for number in range(3000))
    broker.source.catalog = replace(broker.source.catalog, shadow_roles=many, before=None)
    broker.access_token()
    event = event_of(broker).as_json()
    assert "shadow-role-2999" not in str(event["shadow_roles"])
    assert may_name_shadow_role(event, "shadow-role-2999")


@pytest.mark.parametrize("names", [None, "octo-next", 7, {"octo-next": 1}, [], [["octo-next"]]])
def test_an_event_that_anybody_wrote_names_no_shadow_role_by_another_type(names: object) -> None:
    assert not may_name_shadow_role({"shadow_roles": names}, "octo-next")


def test_audit_show_tells_which_would_have_admitted(state: Path) -> None:
    tail = run("audit", "tail", "--state", state, "--shadow", "--format", "json").stdout
    event = json.loads(tail.splitlines()[0])
    file = state / "documents.yaml"
    file.write_text(DOCUMENTS + SHADOW)
    shown = run("audit", "show", event["event_id"], "--state", state, "--documents", file).stdout
    assert "shadow    octo-next\n" in shown
    assert "would get release | deploy\n" in shown
    assert "a shadow Role: it admits nobody, and would admit" in shown


def test_check_says_that_it_admits_nobody(tmp_path: Path) -> None:
    file = tmp_path / "documents.yaml"
    file.write_text(DOCUMENTS + SHADOW)
    result = run("check", file)
    assert result.exit_code == 0
    assert "note: shadow Roles, which admit nobody: octo-next\n" in result.stdout
    told = json.loads(run("check", file, "--format", "json").stdout)
    assert len(told["notes"]) == 2


# Kubernetes


def space_with(*raws: objects.Raw) -> Namespace:
    return Namespace(
        objects.issuer(),
        objects.policy("give", objects.allow("*", "*")),
        objects.policy("take", objects.deny("*", "prod:*")),
        *raws,
    )


JOB = builders.good(aud=builders.AUDIENCE)


def test_an_object_that_becomes_a_shadow_role_takes_away_what_it_gave() -> None:
    space = space_with(objects.role("r", "give"))
    assert space.answer(JOB, "Function:Get") == "yes"
    space.apply(objects.role("r", "give", effect="Shadow"))
    assert space.answer(JOB, "Function:Get") == "no_role_admits"
    assert space.verdict("Role", "r").message == ("In force as a shadow Role, which admits nobody.")
    assert [role.name for role in space.catalog.shadow_roles] == ["r"]
    space.apply(objects.role("r", "give"))
    assert space.answer(JOB, "Function:Get") == "yes"


def test_a_deny_ends_on_purpose_where_its_role_becomes_a_shadow_role() -> None:
    space = space_with(objects.role("r", "give"), objects.role("guard", "take"))
    assert space.answer(JOB, "Function:Get", "prod:x") == "no"
    space.apply(objects.role("guard", "take", effect="Shadow"))
    assert space.answer(JOB, "Function:Get", "prod:x") == "yes"


BAD: dict[str, Any] = {"principal": {"jwt:sub": 1.5}}


@pytest.mark.parametrize("effect", ["Shadow", "Shdow", None, 1.5])
def test_a_deny_holds_where_that_edit_has_an_error(effect: object) -> None:
    space = space_with(objects.role("r", "give"), objects.role("guard", "take"))
    space.apply(objects.role("guard", "take", effect=effect, **BAD))
    assert space.answer(JOB, "Function:Get", "prod:x") == "no"
    assert space.verdict("Role", "guard").held


def test_a_bad_shadow_role_refuses_nobody_at_a_cold_start() -> None:
    space = space_with(objects.role("r", "give"))
    space.apply(objects.role("s", "take", effect="Shadow", **BAD))
    space.restart()
    assert space.answer(JOB, "Function:Get") == "yes"
    assert not space.catalog.incomplete
    assert space.verdict("Role", "s").message == "It has errors and is left out: it gives nothing."


def test_a_deny_on_the_name_of_a_role_holds_where_that_edit_has_an_error() -> None:
    """Tokens are narrowed, since what gave the name is left out."""
    named = {"ForAnyValue:StringEqual": {"jwt:role": ["r"]}}
    space = space_with(objects.role("r", "give"), objects.role("other", "give", "no-r"))
    space.apply(objects.policy("no-r", objects.deny("*", "*", condition=named)))
    assert space.answer(JOB, "Function:Get") == "no"
    space.apply(objects.role("r", "give", effect="Shadow", **BAD))
    assert space.catalog.incomplete
    assert space.answer(JOB, "Function:Get") == "no"
    space.apply(objects.role("r", "give", effect="Shadow"))
    assert space.answer(JOB, "Function:Get") == "yes"


@pytest.mark.parametrize("effect", ["Shdow", 1.5, ["Shadow"]])
def test_one_whose_effect_cannot_be_read_refuses_at_a_cold_start(effect: object) -> None:
    space = space_with(objects.role("r", "give"))
    space.apply(objects.role("s", "take", effect=effect))
    space.restart()
    assert space.answer(JOB, "Function:Get") == "policy_missing"


def test_a_shadow_role_whose_policy_is_lost_makes_nothing_incomplete() -> None:
    space = space_with(objects.role("s", "give", "look", effect="Shadow"))
    space.apply(objects.policy("look", objects.allow()))
    space.apply(objects.policy("look", objects.allow("nothing")))
    assert [role.policies for role in space.catalog.shadow_roles] == [("give",)]
    assert not space.catalog.incomplete


def test_a_file_has_its_name_before_an_object() -> None:
    files = catalog_of(DOCUMENTS + SHADOW)
    space = Namespace(objects.role("octo-next", "deploy"), files=files)
    assert space.standing("Role", "octo-next") == "Conflict"
    assert space.catalog.shadow_roles == files.shadow_roles
    assert HIDDEN not in space.verdict("Role", "octo-next").message


def told_of_objects(rng: Random) -> Counter[str]:
    """Add a shadow Role to a world of objects, make it bad, and compare what is allowed."""
    made = world(rng)
    if made is None:
        return Counter()
    before, warnings = allowed(made, made.space.catalog), made.space.catalog.incomplete
    of = rng.choice([each for (kind, _), each in made.space.raws.items() if kind == "Role"])
    good = objects.raw("Role", "shadow", {**of["spec"], "effect": "Shadow"})
    bad = anyhow(rng, good)
    bad["spec"]["effect"] = "Shadow"
    for written, restart in ((good, False), (good, True), (bad, False), (bad, True)):
        made.space.apply(written)
        if restart:
            made.space.restart()
        assert allowed(made, made.space.catalog) == before, (written, restart)
        assert made.space.catalog.incomplete == warnings
    standing = made.space.standing("Role", "shadow")
    return Counter({"allowed": bool(before), f"bad: {standing}": 1})


@given(randoms)
@examples
def test_an_object_good_or_bad_changes_nothing_as_long_as_its_effect_can_be_read(
    rng: Random,
) -> None:
    told_of_objects(rng)


def test_the_generated_objects_show_every_case() -> None:
    counts: Counter[str] = Counter()
    for seed in range(120):
        counts += told_of_objects(Random(seed))  # noqa: S311  no secret
    assert counts["allowed"] >= 20, counts
    assert counts["bad: Invalid"] >= 10, counts
    assert counts["bad: Accepted"] >= 3, counts


# A broker that serves


def documents_of(issuer: LocalIssuer, **spec: str) -> str:
    """Documents whose only Role has *spec* beside what admits jobs on main."""
    iss = issuer.iss("github")
    admits: Any = documents.role("next", iss)["spec"]
    role = documents.document("Role", "next", {**admits, **spec})
    return documents.as_text(documents.issuer("local", iss), documents.DEPLOY, role)


def test_a_broker_tells_of_it_and_admits_once_its_effect_is_removed(tmp_path: Path) -> None:
    shadow = partial(documents_of, effect="Shadow")
    flags = ("--metrics-port", "0", "--issuer-url", AUDIENCE, "--failed-exchanges", "0")
    with (
        local_issuer() as issuer,
        started(tmp_path, issuer, *flags, written=shadow) as broker,
    ):
        assert broker.exchange().json()["reason"] == "no_role_admits"
        shown = run("audit", "tail", "--state", broker.state, "--shadow", "--format", "json")
        (event,) = map(json.loads, shown.stdout.splitlines())
        assert (event["shadow_roles"], event["shadow_policies"]) == (["next"], ["deploy"])
        assert value(broker.metrics(), COUNTED, role="next") == 1
        (broker.documents / "all.yaml").write_text(documents_of(issuer), "utf-8")
        assert until(lambda: broker.exchange().status_code == 200, 5)
