"""
What a claim says can never widen a resource that it stands in, nor end a Deny.

Callers choose much of what their tokens say: branches, workflows, names of accounts. A value in a
resource is a plain text, and one that no namespace or function could be called gives nothing and
takes away everything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from federation.claims import Claims
from federation.cli import main
from federation.documents.resources import Resource
from federation.errors import Reason, Refusal
from federation.gateway.narrow import visible
from federation.policy.index import PolicyNames, PolicySet, PolicySets
from federation.policy.permissions import Access, decide, granted_resources
from federation.tokens.verify import _resources
from tests.harness import documents
from tests.harness.broker import catalog_of, refusal, said
from tests.harness.builders import GITHUB, catalog, policy, sample
from tests.harness.gateway import Front
from tests.harness.openfaas import Function

HOSTILE: list[Any] = [
    *("*", "**", "?", "a*", "*a", "te?m", "[a]", "a|b", "a.b", ".*", "a.*", "^", "$", "\\", "a\\*"),
    *("a:b", "a:*", ":", "*:*", "a/b", "/", "../a", "..", ".", "%2a", "a%3Ab"),
    *("${jwt:b}", "$", "{", "}", "${", "$(b)", "{{b}}", "jwt:b"),
    *("A", "Team-a", "team-A", "\u212aelvin", "\u0430", "\u00e9", "e\u0301", "\uff41", "a\u200b"),
    *("", " ", " a", "a ", "a b", "a\n", "\na", "a\r", "a\t", "a\x00", "\x00", "a\u2028"),
    *("-", "-a", "a-", "_a", "a_b", "a,b", "a;b", "a'b", 'a"b', "a" * 64, "a" * 5000),
    *(-1, 10**63, 1.0, 1.5, None, [], ["a"], ["*"], [["a"]], {}, {"a": "a"}, {"": "*"}),
]
"""Values of a claim that must not stand in a resource."""
USUAL: list[tuple[Any, str]] = [
    *(("a", "a"), ("a-b", "a-b"), ("1", "1"), (1, "1"), (0, "0"), (True, "true"), (False, "false")),
    *(("a" * 63, "a" * 63), ("--".join("ab"), "a--b"), ("0a", "0a")),
]
PLACES = ["dev", "team-a", "team-a-eu", "a", "prod", "team-", "*"]
FORMS = ["${jwt:v}:*", "team-${jwt:v}:*", "team-${jwt:v}-*:*", "*${jwt:v}*:*", "${jwt:/v}:fn"]


def asked(namespace: str, name: str = "fn") -> Access:
    return Access("Function:Get", namespace, name)


def statement(effect: str, *resources: str) -> PolicySet:
    return PolicySet(
        [policy("p", {"effect": effect, "action": ["*"], "resource": list(resources)})]
    )


def claiming(value: Any) -> Claims:
    return Claims({"v": value, "b": "dev"})


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:24])
@pytest.mark.parametrize("form", FORMS)
def test_a_hostile_value_gives_nothing(form: str, value: Any) -> None:
    policies, claims = statement("Allow", form), claiming(value)
    for namespace in PLACES:
        for name in ("fn", "*"):
            assert not decide(policies, asked(namespace, name), claims).allowed
            call = Access("Function:Invoke", namespace, name)
            assert not decide(policies, call, claims).allowed
        assert not visible(policies, claims, namespace)
    assert not decide(policies, Access("Namespace:List", "*", "*"), claims).allowed
    assert granted_resources(policies, "Function:Invoke", claims) == ()


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:24])
@pytest.mark.parametrize("form", FORMS)
def test_a_hostile_value_takes_everything_that_the_other_half_names(form: str, value: Any) -> None:
    give = policy("give", {"action": ["*"], "resource": ["*"]})
    policies = PolicySet([give, *statement("Deny", form)])
    claims = claiming(value)
    for namespace in PLACES:
        decision = decide(policies, asked(namespace), claims)
        assert (decision.allowed, decision.policy) == (False, "p")
    free = form.endswith(":fn")
    assert decide(policies, asked("dev", "other"), claims).allowed == free
    assert granted_resources(policies, "Function:Invoke", claims) == ()


def test_a_token_without_the_claim_is_as_one_with_a_hostile_value() -> None:
    give = policy("give", {"action": ["*"], "resource": ["*"]})
    for form in FORMS:
        assert not decide(statement("Allow", form), asked("dev"), Claims({})).allowed
        walled = PolicySet([give, *statement("Deny", form)])
        assert not decide(walled, asked("dev"), Claims({})).allowed


@pytest.mark.parametrize(("value", "text"), USUAL, ids=lambda value: ascii(value)[:24])
def test_a_value_stands_for_itself_alone(value: Any, text: str) -> None:
    policies, claims = statement("Allow", "team-${jwt:v}:*"), claiming(value)
    assert decide(policies, asked(f"team-{text}"), claims).allowed
    for other in (*PLACES, f"team-{text}-eu", f"team-{text}1", f"xteam-{text}", f"Team-{text}"):
        if other != f"team-{text}":
            assert not decide(policies, asked(other), claims).allowed
    (granted,) = granted_resources(policies, "Function:Invoke", claims)
    assert granted.text == f"team-{text}:*"


def test_one_bad_value_among_several_spoils_its_half_and_no_other() -> None:
    claims = Claims({"a": "x", "b": "*", "c": "y"})
    assert not decide(
        statement("Allow", "${jwt:a}-${jwt:b}:${jwt:c}"), asked("x-z", "y"), claims
    ).allowed
    give = policy("give", {"action": ["*"], "resource": ["*"]})
    walled = PolicySet([give, *statement("Deny", "${jwt:a}-${jwt:b}:${jwt:c}")])
    assert not decide(walled, asked("anything", "y"), claims).allowed
    assert decide(walled, asked("anything", "z"), claims).allowed


def test_a_value_is_not_filled_in_twice() -> None:
    claims = Claims({"a": "${jwt:b}", "b": "dev"})
    assert Resource("${jwt:a}:*").filled(claims, taking=False) is None
    assert Resource("${jwt:b}:*").filled(claims, taking=False) == Resource("dev:*")


@pytest.mark.parametrize("key", ["/role/0", "/policy/0", "/fed:deny_only/0"])
def test_leaving_out_a_role_ends_no_deny_on_its_name_and_gives_nothing(key: str) -> None:
    both = policy(
        "p",
        {"sid": "give", "action": ["*"], "resource": ["dev:*", f"${{jwt:{key}}}:*"]},
        {"sid": "take", "effect": "Deny", "action": ["*"], "resource": [f"${{jwt:{key}}}:fn"]},
    )
    claims = Claims({"role": ["dev"], "policy": ["dev"], "fed:deny_only": ["dev"]})
    sets, snapshot = PolicySets(), catalog(policies=[both])
    narrowed = sets.of(snapshot, PolicyNames(("p",), narrowed=True))
    assert decide(sets.of(snapshot, PolicyNames(("p",))), asked("prod"), claims).sid is None
    assert decide(narrowed, asked("prod"), claims).sid == "take"
    assert decide(narrowed, asked("dev"), claims).sid == "take"
    assert decide(narrowed, asked("dev", "other"), claims).allowed
    assert not decide(narrowed, asked("prod", "other"), claims).allowed


@pytest.mark.parametrize("form", ["TEAM-${jwt:v}:Vault", "*EAM-${jwt:v}:*ault"])
def test_a_call_in_another_case_passes_by_no_deny(form: str) -> None:
    give = policy("give", {"action": ["*"], "resource": ["*"]})
    walled, claims = PolicySet([give, *statement("Deny", form)]), claiming("a")
    for namespace, name in (("team-a", "vault"), ("Team-A", "VAULT"), ("TEAM-a", "Vault")):
        call = Access("Function:Invoke", namespace, name)
        assert not decide(walled, call, claims).allowed
        assert decide(walled, call, claiming("b")).allowed
    assert decide(walled, asked("team-a", "vault"), claims).allowed, "only DNS has no case"


def test_the_subject_of_an_access_token_is_no_name() -> None:
    policies = statement("Allow", "${jwt:sub}:*")
    assert not decide(policies, asked("fed"), Claims({"sub": "fed:dev"})).allowed


def test_a_function_token_holds_no_variable() -> None:
    with pytest.raises(Refusal) as refused:
        _resources(["${jwt:v}:*"])
    assert refused.value.reason is Reason.MALFORMED_TOKEN


@pytest.mark.parametrize(
    "text",
    [
        *("${v}:*", "${jwt:}:*", "${jwt:v:*", "$jwt:v:*", "{jwt:v}:*", "${jwt:v}", "${JWT:v}:*"),
        *("${jwt:v}:${jwt:v}:*", "${jwt:${jwt:v}}:*", "${jwt:/v~2}:*", "${jwt:v\n}:*", "$:*"),
        *("${ jwt:v}:*", "${jwt:v}}:*", "${jwt:v$}:*", "${fed:v}:*", "$(jwt:v):*", "${jwt:v}:", "?:*"),
    ],
)  # fmt: skip
def test_what_is_no_variable_is_no_resource(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Resource(text)


def test_a_resource_of_the_greatest_length_is_read_and_filled_at_once() -> None:
    many = "${jwt:v}" * 120
    resource = Resource(f"{many}*{many[:56]}:*")
    for value in ("a" * 63, "*", "a"):
        resource.filled(claiming(value), taking=True)
    with pytest.raises(ValueError, match=r"."):
        Resource("${jwt:/" + "a/" * 500)


# From a job's token to an answer of the gateway

FOLLOWING = documents.as_text(
    documents.issuer("github", GITHUB),
    documents.policy(
        "own",
        {"action": ["*"], "resource": ["repo-${jwt:repository_id}:*"]},
        {"sid": "wall", "effect": "Deny", "action": ["*"], "resource": ["*:${jwt:environment}"]},
    ),
    documents.document(
        "Role",
        "all",
        {
            "policy": ["own"],
            "condition": {
                "StringEqual": {"jwt:iss": [GITHUB], "jwt:repository_owner_id": ["13420041"]}
            },
        },
    ),
)


@pytest.fixture
def front(tmp_path: Path) -> Front:
    made = Front(tmp_path)
    made.sample.namespaces["repo-412890077"] = {}
    made.sample.functions["repo-412890077", "app"] = Function({"image": "app:1"})
    made.source.catalog = catalog_of(FOLLOWING)
    return made


def status(front: Front, token: str, namespace: str, name: str = "app") -> int:
    return front.call("GET", f"/system/function/{name}?namespace={namespace}", token).status_code


def test_a_job_gets_the_namespace_of_its_repository_and_no_other(front: Front) -> None:
    own = front.access_token(front.github.token(front.claims(environment="vault")))
    assert status(front, own, "repo-412890077") == 200
    assert status(front, own, "repo-412890077", "vault") == 403
    for other in ("repo-1", "repo-4128900771", "dev", "xrepo-412890077"):
        assert status(front, own, other) == 403
    answer = front.exchange(own, scope="function")
    assert refusal(answer) == (400, "invalid_scope"), "a Deny could reach into the grant"
    answer = front.exchange(own, scope="function", audience="repo-412890077:app")
    opens = ["repo-412890077:app"]
    function = said(answer.json()["access_token"])["function"]
    assert function == {"permissions": opens, "audience": opens}


@pytest.mark.parametrize("value", ["*", "412890077:app", "4/1", "${jwt:repository_owner_id}", ""])
def test_a_job_that_says_something_else_gets_nothing(front: Front, value: str) -> None:
    forged = front.github.token(front.claims(environment="vault", repo_property_x=value))
    text = FOLLOWING.replace("jwt:repository_id", "jwt:repo_property_x")
    front.source.catalog = catalog_of(text)
    token = front.access_token(forged)
    for namespace in ("repo-412890077", "repo-13420041", "repo-4", "dev"):
        assert status(front, token, namespace) == 403


def test_a_job_without_the_claim_of_a_deny_is_denied(front: Front) -> None:
    token = front.access_token(front.github.token(front.claims()))
    assert status(front, token, "repo-412890077") == 403


def test_the_name_of_a_claim_moves_no_cursor_and_commands_no_runner(tmp_path: Path) -> None:
    """The name stands in a document, which may be somebody else's pull request."""
    hostile = "\x9b2J\u202e##vso[task.setvariable]x"
    text = (tmp_path / "documents.yaml", tmp_path / "claims.json")
    written = json.dumps(f"${{jwt:{hostile}}}:*")
    text[0].write_text(documents.DOCUMENTS.replace('["dev:*"]', f"[{written}]"), "utf-8")
    text[1].write_text(json.dumps({**sample("github-push-main"), hostile: hostile}), "utf-8")
    where = ("--documents", str(text[0]))
    for words in (
        ("who-can", "Function:Create", "dev:figlet", *where),
        ("who-can", "--role", "octo-deployer", *where),
        ("explain", *where, "--claims", str(text[1]), "--access", "Function:Create=dev:figlet"),
    ):
        done = CliRunner().invoke(main, words)
        assert "\\x9b2J" in done.output, done.output
        assert done.output.replace("\n", "").isprintable()
        assert "##vso[" not in done.output
