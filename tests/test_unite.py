"""Objects of the Kubernetes API beside files: one bad object, and what is in force then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from federation.documents.catalog import Catalog
from federation.documents.kubernetes.unite import Standing
from federation.documents.model import JwtIssuer
from federation.errors import Problem, Severity
from tests.harness.builders import GENERIC, GITHUB, GITLAB, sample
from tests.harness.objects import (
    OWNER,
    Namespace,
    Raw,
    allow,
    deny,
    issuer,
    policy,
    raw,
    role,
)

PUSH = sample("github-push-main")
GET, CREATE, LOGS = "Function:Get", "Function:Create", "Function:Logs"
GIVE, MORE = policy("give", allow(GET)), policy("more", allow(LOGS))
WALL = policy("wall", deny(CREATE))
ALL = policy("all", allow("*", "*"))


def changed(document: Raw, **spec: Any) -> Raw:
    """*document* with other fields in its spec; None removes one."""
    fields = {**document["spec"], **spec}
    return {
        **document,
        "spec": {name: value for name, value in fields.items() if value is not None},
    }


def broken(document: Raw) -> Raw:
    """*document* with an unknown field, whose meaning cannot be guessed."""
    return changed(document, surprise="?")


# What is good


def test_good_objects_are_in_force_whatever_their_order() -> None:
    objects = [issuer(), GIVE, role("r", "give")]
    for listed in (objects, objects[::-1]):
        space = Namespace(*listed)
        assert space.answer(PUSH, GET) == "yes"
        assert space.answer(PUSH, CREATE) == "no"
        for kind, name in space.raws:
            assert space.standing(kind, name) is Standing.ACCEPTED
        assert not space.catalog.incomplete
        assert space.catalog.refusing == ()


def test_objects_may_name_issuers_and_policies_of_files() -> None:
    files = Namespace(issuer(), GIVE).catalog
    space = Namespace(role("r", "give"), files=files)
    assert space.answer(PUSH, GET) == "yes"
    assert files.roles == ()


def test_a_warning_stands_beside_what_is_accepted() -> None:
    unused = policy("unused", allow())
    space = Namespace(issuer(), GIVE, unused, role("r", "give"))
    verdict = space.verdict("Policy", "unused")
    assert (verdict.standing, verdict.message) == (Standing.ACCEPTED, "In force.")
    (problem,) = verdict.problems
    assert (problem.code, problem.severity) == ("W109", Severity.WARNING)
    assert (problem.path, problem.line, problem.kind) == ("kubernetes", 0, "Policy")
    assert "W102" in space.codes("Role", "r")


@pytest.mark.parametrize(
    "naming",
    [
        role("r", "give", iss="https://nobody.example"),
        broken(role("r", "give")),
        role("r", "give", "gone"),
    ],
    ids=["a Role that waits", "a Role that cannot be read", "a Role that refuses"],
)
def test_a_policy_is_not_called_unused_because_its_role_is_not_in_force(naming: Raw) -> None:
    assert Namespace(issuer(), GIVE, naming).codes("Policy", "give") == []


def test_the_digest_tells_generations_and_what_is_left_out() -> None:
    space = Namespace(issuer(), GIVE, role("r", "give"))
    first = space.catalog.digest
    space.restart()
    assert space.catalog.digest == first
    again = role("r", "give")
    again["metadata"]["resourceVersion"] = "8"  # somebody wrote its status
    space.apply(again)
    assert space.catalog.digest == first
    space.apply({**again, "metadata": {**again["metadata"], "generation": 2}})
    second = space.catalog.digest
    space.apply(broken(GIVE))
    assert len({first, second, space.catalog.digest}) == 3


# Files come first (decision 1)


def _files() -> Namespace:
    return Namespace(issuer(), GIVE, role("r", "give"))


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (issuer("github", GENERIC), "the JwtIssuer github in a file"),
        (issuer("other"), "a JwtIssuer in a file has this iss"),
        (policy("give", allow("*", "*")), "the Policy give in a file"),
        (role("r", "root"), "the Role r in a file"),
    ],
    ids=["name of an issuer", "iss", "name of a Policy", "name of a Role"],
)
def test_a_file_wins(obj: Raw, message: str) -> None:
    space = Namespace(obj, policy("root", allow("*", "*")), files=_files().catalog)
    verdict = space.verdict(obj["kind"], obj["metadata"]["name"])
    assert verdict.standing is Standing.CONFLICT
    assert message in verdict.message.replace('"', "")
    assert not verdict.held
    assert not verdict.refuses
    assert space.answer(PUSH, GET) == "yes"
    assert space.answer(PUSH, CREATE) == "no"
    assert not space.catalog.incomplete


def test_documents_that_are_moved_from_files_refuse_nobody_on_the_way() -> None:
    walled = [issuer(), ALL, WALL, role("r", "all", "wall", tokenExpiry="5m")]
    space = Namespace(*walled, files=Namespace(*walled).catalog)
    assert space.answer(PUSH, GET) == "yes"
    assert space.answer(PUSH, CREATE) == "no"


# One iss twice (decision 1)

OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def test_of_two_issuers_with_one_iss_the_older_wins() -> None:
    space = Namespace(issuer("young", created=YOUNG), issuer("old", created=OLD))
    assert space.in_force("JwtIssuer") == ["old"]
    assert space.standing("JwtIssuer", "young") is Standing.CONFLICT
    assert space.codes("JwtIssuer", "young") == ["D010"]
    assert "the older JwtIssuer old has this iss" in space.verdict("JwtIssuer", "young").message


def test_of_two_issuers_of_one_second_the_uid_decides() -> None:
    assert Namespace(issuer("b"), issuer("a")).in_force("JwtIssuer") == ["a"]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "spec",
    [{"surprise": "?"}, {"iss": 5}, {"iss": None}, {"iss": "http://idp.example"}, {"aud": []}],
    ids=str,
)
def test_a_bad_issuer_keeps_its_iss(spec: dict[str, object], restarted: bool) -> None:
    old = issuer("old", created=OLD)
    space = Namespace(old, issuer("young", created=YOUNG))
    space.apply(changed(old, **spec))
    if restarted:
        space.restart()
    space.read()  # nothing more changes with time
    assert space.in_force("JwtIssuer") == []
    assert space.standing("JwtIssuer", "old") is Standing.INVALID
    assert space.standing("JwtIssuer", "young") is Standing.CONFLICT
    space.delete("JwtIssuer", "old")
    assert space.in_force("JwtIssuer") == ["young"]


def test_an_issuer_whose_iss_cannot_be_read_stops_only_younger_ones_and_none_of_files() -> None:
    files = Namespace(issuer("in-a-file", GENERIC)).catalog
    space = Namespace(
        issuer("old", GITLAB, created=OLD),
        issuer("unread", iss=5, created="2026-01-15T00:00:00Z"),  # type: ignore[arg-type]  # bad
        issuer("young", created=YOUNG),
        files=files,
    )
    assert space.in_force("JwtIssuer") == ["in-a-file", "old"]
    assert "cannot be read" in space.verdict("JwtIssuer", "young").message


def test_a_bad_younger_issuer_does_not_disturb_the_older() -> None:
    space = Namespace(issuer("old", created=OLD), broken(issuer("young", created=YOUNG)))
    assert space.in_force("JwtIssuer") == ["old"]


# A bad Policy (decision 2)


def test_a_bad_policy_that_denies_is_held_while_the_process_lives() -> None:
    space = Namespace(issuer(), ALL, WALL, role("r", "all", "wall"))
    space.apply(changed(WALL, statement=[{**deny(CREATE), "effect": "Alow"}]))
    for _ in range(2):
        verdict = space.verdict("Policy", "wall")
        assert (verdict.standing, verdict.held) == (Standing.INVALID, True)
        assert "last good version stays in force" in verdict.message
        assert space.standing("Role", "r") is Standing.ACCEPTED
        assert space.answer(PUSH, GET) == "yes"
        assert space.answer(PUSH, CREATE) == "no"
        space.read()
    space.restart()
    assert not space.verdict("Policy", "wall").held
    assert space.answer(PUSH, GET) == "policy_missing"
    assert space.standing("Role", "r") is Standing.POLICY_MISSING
    assert space.verdict("Role", "r").refuses


@pytest.mark.parametrize("restarted", [False, True])
def test_a_bad_policy_that_only_gives_is_left_out(restarted: bool) -> None:
    space = Namespace(issuer(), GIVE, MORE, role("r", "give", "more"), role("only", "more"))
    space.apply(changed(MORE, statement=[allow("Function:Look")]))
    if restarted:
        space.restart()
    for _ in range(2):
        assert space.answer(PUSH, GET) == "yes"
        assert space.answer(PUSH, LOGS) == "no"
        assert space.in_force() == ["r"]
        assert space.in_force("Policy") == ["give"]
        assert space.catalog.incomplete
        for name, message in {
            "r": "In force without Policy more, left out for errors.",
            "only": "Left out, because it names only Policy more, left out for errors.",
        }.items():
            verdict = space.verdict("Role", name)
            assert (verdict.standing, verdict.message) == (Standing.POLICY_MISSING, message)
            assert not verdict.refuses
            assert "D011" in space.codes("Role", name)
        space.read()


def test_a_role_that_lost_all_its_policies_still_limits_how_long_tokens_live() -> None:
    space = Namespace(
        issuer(), GIVE, MORE, role("r", "give"), role("cap", "more", tokenExpiry="2m")
    )
    space.apply(broken(MORE))
    assert [(r.name, r.policies) for r in space.catalog.roles] == [("cap", ()), ("r", ("give",))]
    assert space.answer(PUSH, GET) == "yes"


@pytest.mark.parametrize(
    ("spec", "may_deny"),
    [
        ({"statement": [allow("Function:Look")]}, False),
        ({"statement": [allow(), {**allow(), "sid": 5}]}, False),
        ({"statement": [allow(), {**allow(), "sid": "s2", "surprise": 1}]}, False),
        ({"statement": [allow(), {**deny(), "surprise": 1}]}, True),
        ({"statement": [allow(), {**allow(), "effect": "allow"}]}, True),
        ({"statement": [allow(), {**allow(), "effect": None}]}, True),
        ({"statement": [allow(), {**allow(), "effect": ["Allow"]}]}, True),
        ({"statement": [allow(), {"sid": "x"}]}, True),
        ({"statement": [allow(), "Allow"]}, True),
        ({"statement": allow()}, True),
        ({"statement": []}, True),
        ({"statements": [allow()]}, True),
        ({}, True),
        ("statement", True),
        (None, True),
    ],
    ids=str,
)
def test_at_a_cold_start_a_bad_policy_may_deny_unless_all_its_effects_allow(
    spec: object, may_deny: bool
) -> None:
    space = Namespace(issuer(), GIVE, raw("Policy", "p", spec), role("r", "give", "p"))
    assert space.standing("Policy", "p") is Standing.INVALID
    assert space.answer(PUSH, GET) == ("policy_missing" if may_deny else "yes")
    told = space.verdict("Policy", "p").message
    assert ("may deny" in told) == may_deny


def test_a_role_that_names_a_policy_which_does_not_exist_refuses_whom_it_would_admit() -> None:
    space = Namespace(issuer(), GIVE, role("r", "give"), role("s", "give", "gone"))
    verdict = space.verdict("Role", "s")
    assert (verdict.standing, verdict.refuses) == (Standing.POLICY_MISSING, True)
    assert "D011" in space.codes("Role", "s")
    assert space.answer(PUSH, GET) == "policy_missing"
    assert (
        space.answer(sample("github-push-main", repository_owner_id="1"), GET) == "no_role_admits"
    )
    space.apply(policy("gone", allow(LOGS)))
    assert space.answer(PUSH, GET) == "yes"


def test_a_policy_that_is_deleted_takes_its_denials_from_nobody() -> None:
    space = Namespace(issuer(), ALL, WALL, role("r", "all", "wall"))
    space.delete("Policy", "wall")
    assert space.answer(PUSH, CREATE) == "policy_missing"


# A bad Role (decision 3)

TAKERS = [
    role("t", "all", "wall"),
    role("t", "give", tokenExpiry="2m"),
]
BAD: list[Callable[[Raw], Raw]] = [
    broken,
    lambda document: changed(document, tokenExpiry="soon"),
    lambda document: changed(document, policy=5),
    lambda document: changed(document, condition={"StringEqual": {"jwt:iss": [GITHUB]}}),
    lambda document: changed(document, policy=[*document["spec"]["policy"], "gone"]),
    lambda document: changed(
        document, condition={"StringEqual": {"jwt:iss": ["https://x.example"]}}
    ),
    lambda document: {**document, "spec": None},
    lambda document: {name: value for name, value in document.items() if name != "spec"},
]
HOW = ["D005", "D016", "D007", "T002", "D011", "no issuer", "no fields", "no spec"]


@pytest.mark.parametrize("taker", TAKERS, ids=["a Deny", "a limit"])
@pytest.mark.parametrize("how", BAD, ids=HOW)
def test_a_bad_role_that_takes_is_held_while_the_process_lives(
    taker: Raw, how: Callable[[Raw], Raw]
) -> None:
    space = Namespace(issuer(), GIVE, ALL, WALL, taker, role("r", "all"))
    before = space.catalog.roles
    space.apply(how(taker))
    for _ in range(2):
        verdict = space.verdict("Role", "t")
        assert verdict.held
        assert verdict.standing is not Standing.ACCEPTED
        assert "the last good version stays in force" in verdict.message
        assert space.catalog.roles == before
        assert space.catalog.refusing == ()
        assert not space.catalog.incomplete
        space.read()
    space.apply(taker)
    assert space.standing("Role", "t") is Standing.ACCEPTED


@pytest.mark.parametrize("how", BAD[:4], ids=HOW[:4])
def test_a_bad_role_that_only_gave_is_left_out_while_the_process_lives(
    how: Callable[[Raw], Raw],
) -> None:
    giver = role("g", "more")
    space = Namespace(issuer(), GIVE, MORE, giver, role("r", "give"))
    space.apply(how(giver))
    for _ in range(2):
        verdict = space.verdict("Role", "g")
        assert not verdict.held
        assert not verdict.refuses
        assert "left out: it gives nothing" in verdict.message
        assert space.answer(PUSH, GET) == "yes"
        assert space.answer(PUSH, LOGS) == "no"
        assert space.catalog.incomplete
        space.read()


def test_what_was_deleted_is_not_held_in_an_object_of_the_same_name() -> None:
    # Between two looks, both happened: deleting it took away what it gave.
    for taker in TAKERS:
        space = Namespace(issuer(), GIVE, ALL, WALL, taker)
        again = broken(taker)
        space.apply({**again, "metadata": {**again["metadata"], "uid": "another"}})
        assert not space.verdict("Role", "t").held
        assert space.answer(PUSH, GET) == "policy_missing"


def test_a_message_names_few_of_many_policies() -> None:
    names = [f"p{n}" for n in range(900)]
    bad = [broken(policy(name, allow())) for name in names[1:]]
    space = Namespace(issuer(), policy("p0", allow()), role("r", *names), *bad)
    assert space.verdict("Role", "r").message == (
        "In force without Policies p1, p2, p3 and 896 more, left out for errors."
    )


@pytest.mark.parametrize("taker", TAKERS, ids=["a Deny", "a limit"])
def test_at_a_cold_start_a_role_that_a_rule_refuses_refuses_if_it_takes(taker: Raw) -> None:
    open_to_all = changed(taker, condition={"StringEqual": {"jwt:iss": [GITHUB]}})
    space = Namespace(issuer(), GIVE, ALL, WALL, open_to_all, role("r", "all"))
    verdict = space.verdict("Role", "t")
    assert (verdict.standing, verdict.refuses) == (Standing.REFUSED, True)
    assert "T002" in space.codes("Role", "t")
    assert "refuses the tokens that it would admit" in verdict.message
    assert space.answer(PUSH, GET) == "policy_missing"


def test_at_a_cold_start_a_role_that_a_rule_refuses_is_left_out_if_it_only_gives() -> None:
    open_to_all = changed(role("g", "give"), condition={"StringEqual": {"jwt:iss": [GITHUB]}})
    space = Namespace(issuer(), GIVE, MORE, open_to_all, role("r", "more"))
    verdict = space.verdict("Role", "g")
    assert (verdict.standing, verdict.refuses, verdict.held) == (Standing.REFUSED, False, False)
    assert space.answer(PUSH, LOGS) == "yes"
    assert space.answer(PUSH, GET) == "no"
    assert space.catalog.incomplete


ISS = {"jwt:iss": [GITHUB]}
OTHER_REF = {"jwt:ref": ["refs/heads/other"]}


@pytest.mark.parametrize(
    ("spec", "refuses"),
    [
        ({"condition": {"StringEqual": {**ISS, "jwt:repository_owner_id": [OWNER]}}}, True),
        ({"condition": {"StringEqual": {**ISS, "jwt:repository_owner_id": ["1"]}}}, False),
        ({"condition": {"StringEqual": {"jwt:iss": [GITLAB]}}}, False),
        ({"condition": {"StringEqual": {**ISS, "jwt:ref": ["refs/heads/other", 1.5]}}}, True),
        ({"condition": {"StringEqual": {**ISS, "ref": ["refs/heads/other"]}}}, True),
        ({"condition": {"StringEqal": OTHER_REF}}, True),
        ({"condition": {"StringEqual": [OTHER_REF]}}, True),
        ({"condition": {"StringEqual": OTHER_REF, "StringLike": {"jwt:ref": []}}}, False),
        ({"condition": [], "principal": OTHER_REF}, False),
        ({"condition": [], "principal": ["jwt:ref"]}, True),
        ({"condition": None, "principal": None}, True),
        ({"condition": {"StringNotEqual": {"jwt:ref": ["refs/heads/main"]}}}, False),
        ({"condition": {"StringNotEqual": {"jwt:ref": ["refs/heads/main", None]}}}, True),
        ({"condition": {"StringLike": {"jwt:ref": ["refs/tags/*", {"a": 1}]}}}, True),
        ({"condition": {"StringLike": {"jwt:ref": ["x" * 2000]}}}, True),
    ],
    ids=str,
)
def test_at_a_cold_start_an_unreadable_role_refuses_whom_its_readable_conditions_admit(
    spec: dict[str, object], refuses: bool
) -> None:
    unread = broken(raw("Role", "u", {"policy": ["give"], **spec}))
    space = Namespace(issuer(), GIVE, role("r", "give"), unread)
    assert space.standing("Role", "u") is Standing.INVALID
    assert space.verdict("Role", "u").refuses
    assert space.answer(PUSH, GET) == ("policy_missing" if refuses else "yes")


def test_a_role_of_which_nothing_can_be_read_refuses_every_token_also_of_files() -> None:
    files = Namespace(issuer(), GIVE, role("r", "give")).catalog
    space = Namespace(raw("Role", "u", None), files=files)
    assert space.answer(PUSH, GET) == "policy_missing"
    assert "refuses every token" in space.verdict("Role", "u").message
    space.delete("Role", "u")
    assert space.answer(PUSH, GET) == "yes"


def test_a_bad_role_that_is_new_stands_as_at_a_cold_start_so_that_replicas_agree() -> None:
    space = Namespace(issuer(), GIVE, role("r", "give"))
    space.apply(broken(role("new", "give")))
    warm = space.united
    space.restart()
    assert (warm.catalog, warm.verdicts) == (space.united.catalog, space.united.verdicts)
    assert space.answer(PUSH, GET) == "policy_missing"


def test_the_last_good_version_is_not_held_where_the_rules_would_refuse_it_now() -> None:
    # Its issuer became one at which ids have other meanings.
    taker = role("t", "give", iss=[GENERIC, "https://b.example"], tokenExpiry="2m")
    taker["spec"]["condition"]["StringEqual"] = {"jwt:iss": [GENERIC, "https://b.example"],
                                                 "jwt:sub": ["s"]}  # fmt: skip
    other = issuer("b", "https://b.example", provider="generic")
    space = Namespace(issuer("a", GENERIC, provider="generic"), other, GIVE, taker)
    assert space.standing("Role", "t") is Standing.ACCEPTED
    space.apply(changed(other, provider="gitlab"))
    verdict = space.verdict("Role", "t")
    assert (verdict.standing, verdict.held, verdict.refuses) == (Standing.REFUSED, False, True)
    assert "T005" in space.codes("Role", "t")


# Bad issuers (decision 4)


def test_a_role_waits_for_its_issuer() -> None:
    space = Namespace(GIVE, role("r", "give"))
    verdict = space.verdict("Role", "r")
    assert (verdict.standing, verdict.refuses) == (Standing.PENDING, False)
    assert not space.catalog.incomplete
    space.apply(issuer())
    assert space.answer(PUSH, GET) == "yes"
    space.apply(broken(issuer()))
    assert space.standing("Role", "r") is Standing.PENDING
    assert space.answer(PUSH, GET) == "untrusted_issuer"


SUBJECT = {"iss": GENERIC, "sub": "s"}


def _on_two(*policies: str, **spec: Any) -> Raw:
    exact = {"jwt:iss": [GENERIC, "https://b.example"], "jwt:sub": ["s"]}
    return raw("Role", "r", {"policy": list(policies), "condition": {"StringEqual": exact}, **spec})


@pytest.mark.parametrize("takes", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("spec", [{"surprise": 1}, {"iss": 5}, {"aud": []}], ids=str)
def test_a_role_with_a_good_and_a_bad_issuer_is_as_one_that_a_rule_refuses(
    spec: dict[str, object], restarted: bool, takes: bool
) -> None:
    two = _on_two("give", **({"tokenExpiry": "2m"} if takes else {}))
    one = [issuer("a", GENERIC), issuer("b", "https://b.example")]
    space = Namespace(*one, GIVE, two)
    assert space.answer(SUBJECT, GET) == "yes"
    space.apply(changed(one[1], **spec))
    if restarted:
        space.restart()
    verdict = space.verdict("Role", "r")
    assert verdict.standing is Standing.REFUSED
    assert (verdict.held, verdict.refuses) == (takes and not restarted, takes and restarted)
    (told,) = [p for p in verdict.problems if p.code == "T001"]
    assert "https://b.example" in told.message
    assert (told.path, told.name, told.field) == (
        "kubernetes", "r", 'condition.StringEqual["jwt:iss"]'
    )  # fmt: skip
    expected = {(True, False): "yes", (True, True): "policy_missing"}
    assert space.answer(SUBJECT, GET) == expected.get((takes, restarted), "no_role_admits")


def test_an_issuer_that_became_bad_does_not_hide_that_issuers_are_mixed() -> None:
    space = Namespace(issuer("a", GENERIC), issuer("b", "https://b.example", provider="gitlab"),
                      GIVE, _on_two("give"))  # fmt: skip
    assert "T005" in space.codes("Role", "r")
    space.apply(changed(space.raws["JwtIssuer", "b"], iss=5))
    space.restart()
    assert space.answer(SUBJECT, GET) == "no_role_admits"


def test_settings_can_refuse_an_issuer_and_its_roles_wait() -> None:
    def judge(judged: JwtIssuer) -> list[Problem]:
        own = Problem("kubernetes", 0, "D026", Severity.ERROR, "is this broker", "JwtIssuer", "own")
        return [own] if judged.name == "own" else []

    space = Namespace(issuer("own", GENERIC), issuer(), GIVE, role("r", "give"), judge=judge)
    assert space.standing("JwtIssuer", "own") is Standing.REFUSED
    assert space.codes("JwtIssuer", "own") == ["D026"]
    assert space.in_force("JwtIssuer") == ["github"]


# A provider that was forgotten

FORGOTTEN = "https://git.example.org"


def _telling(*policies: str, **claims: str) -> Raw:
    said = {f"jwt:{claim}": [value] for claim, value in (claims or {"project_id": "5"}).items()}
    exact = {"jwt:iss": [FORGOTTEN], **said}
    return raw("Role", "telling", {"policy": list(policies), "condition": {"StringEqual": exact}})


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_role_with_a_ci_systems_claim_cannot_stop_an_issuer(in_a_file: bool) -> None:
    plain = raw("Role", "plain", {
        "policy": ["give"],
        "condition": {"StringEqual": {"jwt:iss": [FORGOTTEN], "jwt:sub": ["s"]}},
    })  # fmt: skip
    files = [issuer("git", FORGOTTEN), GIVE, plain]
    space = Namespace(*files) if not in_a_file else Namespace(files=Namespace(*files).catalog)
    space.apply(_telling("give"))
    verdict = space.verdict("Role", "telling")
    assert verdict.standing is Standing.REFUSED
    assert "D025" in space.codes("Role", "telling")
    assert space.answer({"iss": FORGOTTEN, "sub": "s"}, GET) == "yes"
    # And to make the Role bad in another way opens nothing.
    space.apply(broken(_telling("give")))
    assert space.in_force("JwtIssuer") == ["git"]


def test_a_role_with_a_ci_systems_subject_is_refused() -> None:
    space = Namespace(issuer("git", FORGOTTEN), GIVE)
    space.apply(_telling("give", sub="project_path:a/b:ref_type:branch:ref:main"))
    assert "D025" in space.codes("Role", "telling")
    assert space.in_force("JwtIssuer") == ["git"]


def test_an_issuer_that_looks_like_a_ci_systems_is_refused_itself() -> None:
    space = Namespace(issuer("ghes", "https://ghes.example.org/_services/token"))
    assert space.standing("JwtIssuer", "ghes") is Standing.REFUSED
    assert space.codes("JwtIssuer", "ghes") == ["D025"]


# Many objects


def test_of_many_roles_only_those_that_changed_are_ruled_again() -> None:
    many = [role(f"r{n}", "give") for n in range(20)]
    space = Namespace(issuer(), GIVE, *many)
    first = space.united.rulings.roles
    space.apply(role("r7", "give", tokenExpiry="5m"))
    assert [k for k, ruled in space.united.rulings.roles.items() if ruled is not first[k]] == [
        ("Role", "r7")
    ]
    second = space.united.rulings.roles
    space.apply(MORE)
    # All are ruled again, since any may name it. But the trust rules said all there is to say.
    third = space.united.rulings.roles
    assert all(third[key] is not second[key] for key in second)
    assert all(third[key].linted is second[key].linted for key in second)


def test_hints_about_an_issuer_that_is_not_there_know_the_issuers_of_now() -> None:
    space = Namespace(GIVE, role("r", "give", iss="https://idp.example.org/realms/a"))
    assert [p.hint for p in space.verdict("Role", "r").problems if p.code == "T001"] == [
        "add a JwtIssuer document with this iss"
    ]
    space.apply(issuer("idp", "https://idp.example.org/realms/b"))
    (hint,) = [p.hint for p in space.verdict("Role", "r").problems if p.code == "T001"]
    assert "did you mean" in hint


# Narrowed tokens (decision 5)


def test_leaving_out_a_role_does_not_end_a_deny_on_its_name() -> None:
    on_name = {"ForAnyValue:StringEqual": {"jwt:role": ["g"]}}
    wall = policy("wall", deny(CREATE, condition=on_name))
    space = Namespace(issuer(), ALL, GIVE, wall, role("g", "give"), role("r", "all", "wall"))
    assert space.answer(PUSH, CREATE) == "no"
    space.apply(broken(role("g", "give")))
    assert space.in_force() == ["r"]
    assert space.answer(PUSH, CREATE) == "no"
    assert space.answer(PUSH, GET) == "yes"


@pytest.mark.parametrize(
    ("bad", "incomplete"),
    [
        (broken(issuer("b", GENERIC)), False),
        (broken(policy("unused", allow())), False),
        (role("waiting", "give", iss="https://nobody.example"), False),
        (role("refusing", "gone"), False),
        (changed(role("left-out", "give"), condition={"StringEqual": ISS}), True),
    ],
    ids=["an issuer", "a Policy of no Role", "waiting", "refusing", "left out"],
)
def test_tokens_are_narrowed_only_while_they_may_lack_a_role_or_policy(
    bad: Raw, incomplete: bool
) -> None:
    assert Namespace(issuer(), GIVE, role("r", "give"), bad).catalog.incomplete is incomplete


BAD_MORE = changed(MORE, statement=["?"])
OTHERS = {"StringEqual": {**ISS, "jwt:repository_owner_id": ["1"]}}
REFUSED_OTHERS = {"StringEqual": {**ISS, "jwt:ref": ["refs/heads/other"]}}


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ([role("g", "give", condition=OTHERS)], [broken(role("g", "give", condition=OTHERS))]),
        ([MORE, role("g", "give", "more", condition=OTHERS)], [BAD_MORE]),
        ([MORE, role("g", "more", condition=OTHERS)], [BAD_MORE]),
        (
            [MORE, role("g", "more", condition=OTHERS)],
            [BAD_MORE, role("g", "more", condition=REFUSED_OTHERS)],
        ),
        (
            [GIVE, MORE, role("g", "give", "more", tokenExpiry="5m", condition=OTHERS)],
            [
                changed(MORE, statement=[allow("Function:Look")]),
                role("g", "give", "more", tokenExpiry="5m", condition=REFUSED_OTHERS),
            ],
        ),
    ],
    ids=[
        "a Role that cannot be read",
        "one of its policies",
        "its only Policy",
        "its Policy, and a rule refuses it",
        "a limit that a rule refuses, and a Policy that is left out",
    ],
)
def test_a_restart_does_not_end_a_deny_on_a_name(good: list[Raw], bad: list[Raw]) -> None:
    """
    Before it, the Role or its Policy is left out, and every token is narrowed.

    After it, the Role refuses. Tokens that it does not refuse must be narrowed as they were.
    """
    on_name = {"ForAnyValue:StringEqual": {"jwt:role": ["g"]}}
    wall = policy("wall", deny(CREATE, condition=on_name))
    space = Namespace(issuer(), ALL, GIVE, wall, role("r", "all", "wall"), *good)
    assert space.answer(PUSH, CREATE) == "yes"
    space.apply(*bad)
    assert space.catalog.incomplete
    assert space.answer(PUSH, CREATE) == "no"
    space.restart()
    assert space.verdict("Role", "g").refuses
    assert space.answer(PUSH, CREATE) == "no"


@pytest.mark.parametrize("restarted", [False, True], ids=["warm", "cold"])
@pytest.mark.parametrize(
    "bad", [changed(MORE, statement=[allow("?")]), BAD_MORE], ids=["gave", "?"]
)
def test_losing_its_issuer_too_does_not_end_a_deny_on_the_name_of_a_role(
    bad: Raw, restarted: bool
) -> None:
    """A Role that lost a Policy narrows tokens, also once all its issuers are bad."""
    on_name = {"ForAnyValue:StringEqual": {"jwt:role": ["g"]}}
    wall = policy("wall", deny(CREATE, condition=on_name))
    exact = {"StringEqual": {"jwt:iss": [GENERIC], "jwt:sub": ["s"]}}
    other = issuer("b", GENERIC, provider="generic")
    given = role("g", "give", "more", condition=exact)
    space = Namespace(issuer(), other, ALL, GIVE, MORE, wall, role("r", "all", "wall"), given)
    assert space.answer(PUSH, CREATE) == "yes"
    space.apply(bad)
    assert space.answer(PUSH, CREATE) == "no"
    space.apply(broken(other))
    if restarted:
        space.restart()
    assert space.answer(PUSH, CREATE) == "no"


# Files that are awaited


def test_what_files_wait_for_is_waited_for() -> None:
    files = Catalog(awaited="the first list")
    assert Namespace(issuer(), files=files).catalog.awaited == "the first list"
