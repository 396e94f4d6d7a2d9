"""Variables in resources: how documents write them, and what the trust rules say about them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import pytest

from federation.claims import Claims, text
from federation.documents.assemble import assemble
from federation.documents.convert import AnyDocument
from federation.documents.kubernetes.unite import Standing
from federation.documents.listing import spec
from federation.documents.model import JwtIssuer, Policy, Role
from federation.documents.parse import parse
from federation.documents.resources import Resource, Variable, usable
from federation.documents.rules.lint import lint
from federation.errors import Problem
from federation.sources.rule_tests import sample_names
from tests.harness import objects
from tests.harness.builders import GITHUB, GITLAB, issuer, pinned, policy, provider_of, role, sample
from tests.harness.objects import Namespace

KEYCLOAK = "https://sso.example.com/realms/octo"
KUBERNETES = "https://kubernetes.default.svc"
ISSUERS = {
    made.iss: made
    for made in (
        issuer(),
        issuer(GITLAB),
        issuer(KEYCLOAK, "keycloak"),
        issuer(KUBERNETES, "kubernetes"),
    )
}
PUSH = sample("github-push-main")
OF_RESOURCES = ("T006", "W122", "W123", "W124")


def giving(*resources: str, effect: str = "Allow") -> Policy:
    return policy("deploy", {"effect": effect, "action": ["*"], "resource": list(resources)})


def found(
    role: Role, *policies: Policy, issuers: Mapping[str, JwtIssuer] = MappingProxyType(ISSUERS)
) -> list[Problem]:
    """What the rules say about the resources."""
    problems = lint(issuers, [_placed(role)], {each.name: each for each in policies})
    return [problem for problem in problems if problem.code in OF_RESOURCES]


def _placed(role: Role) -> Role:
    places = tuple(("spec", "condition", str(n)) for n in range(len(role.conditions)))
    return Role(role.name, role.policies, role.conditions, places=places)


@pytest.mark.parametrize(
    ("iss", "resource", "codes"),
    [
        (GITHUB, "team-${jwt:repository_owner_id}:*", []),
        (GITHUB, "team-${jwt:/repository_owner_id}-*:${jwt:repository_id}", []),
        (GITHUB, "${jwt:environment}:*", []),
        (GITHUB, "${jwt:repo_property_team}:*", []),
        (GITHUB, "${jwt:jti}:*", []),
        (GITHUB, "${jwt:workflow}:*", ["T006"]),
        (GITHUB, "dev:${jwt:/workflow}", ["T006"]),
        (GITHUB, "dev:${jwt:/workflow/name}", ["T006"]),
        (GITHUB, "${jwt:actor}:*", ["T006"]),
        (GITHUB, "${jwt:actor_id}:*", ["T006"]),
        (GITHUB, "${jwt:job_workflow_ref}:*", ["T006"]),
        (GITHUB, "${jwt:repository_owner}:*", ["W122"]),
        (GITHUB, "${jwt:enterprise}:*", ["W122"]),
        (GITHUB, "${jwt:repository}:*", ["W123"]),
        (GITHUB, "${jwt:ref}:*", ["W123"]),
        (GITHUB, "${jwt:sub}:*", ["W123"]),
        (GITHUB, "${jwt:iss}:*", ["W123"]),
        (GITHUB, "${jwt:aud}:*", ["W123"]),
        (GITHUB, "${jwt:role}:*", ["W123"]),
        (GITHUB, "${jwt:nonce}:*", ["W123"]),
        (GITHUB, "${jwt:project_id}:*", ["W123"]),
        (GITHUB, "${jwt:repositry_id}:*", ["W123"]),
        (GITHUB, "${jwt:repository_id}*:*", ["W124"]),
        (GITHUB, "*${jwt:repository_id}:*", ["W124"]),
        (GITHUB, "dev:${jwt:repository_id}${jwt:repository_owner_id}", ["W124"]),
        (GITLAB, "${jwt:project_id}:*", []),
        (GITLAB, "${jwt:user_login}:*", ["T006"]),
        (GITLAB, "${jwt:project_path}:*", ["W123"]),
        (GITLAB, "${jwt:namespace_path}:*", ["W122"]),
        (KEYCLOAK, "${jwt:preferred_username}:*", ["W122"]),
        (KEYCLOAK, "${jwt:name}:*", ["T006"]),
        (KEYCLOAK, "${jwt:employee}:*", []),
        (KUBERNETES, "${jwt:/kubernetes.io/namespace}:*", []),
        (KUBERNETES, "${jwt:/kubernetes.io/pod/name}:*", ["T006"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_variable_is_judged_by_the_provider_of_the_role(
    iss: str, resource: str, codes: Sequence[str]
) -> None:
    problems = found(pinned("r", iss), giving(resource))
    assert [problem.code for problem in problems] == codes
    for problem in problems:
        of = ("Policy", "deploy") if problem.code == "W124" else ("Role", "r")
        assert (problem.kind, problem.name) == of
        place = "statement[0].resource[0]" if problem.code == "W124" else "policy[0]"
        assert problem.field == place
        assert resource.partition("}")[0].partition("{")[2] in problem.message
        assert problem.hint


def _texts_of(value: object, *path: str) -> Iterator[tuple[str, str]]:
    """Each claim in *value*, as a variable names it, and its text."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _texts_of(member, *path, name.replace("~", "~0").replace("/", "~1"))
    elif (told := text(value)) is not None:
        key = path[0] if len(path) == 1 and "~" not in path[0] else "/" + "/".join(path)
        yield f"${{jwt:{key}}}", told


@pytest.mark.parametrize("provider", sorted({provider_of(name) for name in sample_names()}))
def test_what_the_samples_show_to_fit_or_not_to_fit_is_judged_so(provider: str) -> None:
    people = "gitlab-user-login"  # the Role below is for jobs, which have other claims
    names = [name for name in sample_names() if name != people]
    tokens = [sample(name) for name in names if provider_of(name) == provider]
    made = issuer(str(tokens[0]["iss"]), provider)
    told: dict[str, set[str]] = {}
    for token in tokens:
        for variable, value in _texts_of(dict(token)):
            told.setdefault(variable, set()).add(value)
    for written, values in told.items():
        if not Variable(written).possible:
            continue
        reported = found(pinned("r", made.iss), giving(f"x-{written}:*"), issuers={made.iss: made})
        codes = {problem.code for problem in reported}
        if any(map(usable, values)):
            assert "W123" not in codes, (written, values)
        if all("/" in value or ":" in value for value in values):
            assert codes & {"W122", "W123", "T006"}, (written, values)


def test_an_id_is_advised_where_the_provider_has_one() -> None:
    (free,) = found(pinned("r"), giving("${jwt:workflow}:*"))
    assert 'such as "${jwt:repository_owner_id}"' in free.hint
    assert "display name" in free.message
    (name,) = found(pinned("r", GITLAB), giving("${jwt:namespace_path}:*"))
    assert name.hint == 'write "${jwt:project_id}"'
    (people,) = found(pinned("r", KEYCLOAK), giving("${jwt:preferred_username}:*"))
    assert people.hint == "name a claim that holds an id, which the issuer can add to its tokens"


def test_a_claim_whose_values_the_role_lists_is_not_asked_about() -> None:
    resources = ("${jwt:workflow}:*", "${jwt:repository_owner}:*")
    listed = pinned("r", workflow="deploy", repository_owner="acme")
    assert found(listed, giving(*resources)) == []
    assert len(found(pinned("r", repository_owner_id="1"), giving(*resources))) == 2


@pytest.mark.parametrize(
    ("claim", "values", "codes"),
    [
        ("job_workflow_ref", ["acme/w/.github/workflows/d.yml@refs/heads/main"], ["W123"]),
        ("workflow", ["Deploy it", "deploy.yml"], ["W123"]),
        ("workflow", ["Deploy it", "deploy"], []),
        ("ref", ["refs/heads/main"], ["W123"]),
        ("environment", ["Production"], ["W123"]),
        ("environment", ["Production", "staging"], []),
        ("repository_owner", ["Acme"], ["W123"]),
    ],
)
def test_a_claim_whose_listed_values_all_fit_in_no_name_is_told(
    claim: str, values: list[str], codes: list[str]
) -> None:
    block = {"StringEqual": {"jwt:iss": GITHUB, f"jwt:{claim}": values}}
    listed = role("r", policy=["deploy"], condition=block)
    problems = found(listed, giving(f"${{jwt:{claim}}}:*"))
    assert [problem.code for problem in problems] == codes
    for problem in problems:
        assert "fits in no name" in problem.message


def test_a_deny_on_what_callers_choose_is_refused_too_and_may_have_no_end() -> None:
    (free,) = found(pinned("r"), giving("${jwt:workflow}*:*", effect="Deny"))
    assert free.code == "T006"


def test_each_claim_of_a_policy_is_told_once_and_policies_that_are_missing_are_not() -> None:
    twice = giving("${jwt:workflow}:*", "x-${jwt:/workflow}:*", "${jwt:workflow}:fn")
    assert len(found(pinned("r"), twice)) == 1
    assert found(pinned("r")) == []


def read(*resources: str) -> tuple[list[Problem], list[AnyDocument]]:
    """The problems of a Policy on *resources*, and what was read."""
    document = {
        "apiVersion": "iam.openfaas.com/v1",
        "kind": "Policy",
        "metadata": {"name": "p"},
        "spec": {
            "statement": [
                {"sid": "s", "effect": "Allow", "action": ["*"], "resource": list(resources)}
            ]
        },
    }
    parsed = parse("p.yaml", json.dumps(document).encode())
    return list(parsed.problems), list(parsed.documents)


@pytest.mark.parametrize(
    ("resource", "hint"),
    [
        ("${repository_owner_id}:*", 'for a claim of the token write "${jwt:repository_owner_id}"'),
        ("${NAMESPACE}:*", "a placeholder that was not filled"),
        ("${NAMESPACE}:*", "a claim of the token is written ${jwt:<claim>}"),
        ("{{ .Values.ns }}:*", "a template that was not rendered"),
        ("$(NS):*", "a placeholder that was not filled"),
        ("${jwt:owner:*", "close it with }"),
        ("${jwt:}:*", "write ${jwt:<claim>}"),
        ("${jwt:/a~2}:*", "write ${jwt:<claim>}, or ${jwt:/a/b} where ~ stands as ~0"),
        ("${jwt:a}", "one : between namespace and function"),
        ("${jwt:a}:${jwt:b}:*", "one : between namespace and function"),
    ],
)
def test_what_was_meant_by_a_malformed_variable_is_told(resource: str, hint: str) -> None:
    (problem,), documents = read(resource)
    assert (problem.code, documents) == ("D015", [])
    assert hint in problem.hint


def test_a_policy_with_variables_is_read_and_written_as_it_is() -> None:
    written = ["${jwt:repository_owner_id}:*", "team-${jwt:/a/b~1c:d}-*:f-${jwt:x y}"]
    problems, (document,) = read(*written)
    assert problems == []
    assert isinstance(document, Policy)
    assert document.variables
    assert spec(document)["statement"][0]["resource"] == written  # type: ignore[index]
    keys = [v.key for resource in document.statements[0].resources for v in resource.variables]
    assert keys == ["jwt:repository_owner_id", "jwt:/a/b~1c:d", "jwt:x y"]
    assert Resource(written[1]).halves == ("team-*-*", "f-*")


def test_two_spellings_of_one_claim_are_one_claim() -> None:
    assert Variable("${jwt:/ref}").key == Variable("${jwt:ref}").key == "jwt:ref"
    assert Variable("${jwt:/a/b}").value(Claims({"a": {"b": 7}})) == "7"


def test_documents_with_a_resource_that_callers_choose_are_not_adopted() -> None:
    free = giving("${jwt:workflow}:*")
    text = "\n---\n".join(
        json.dumps(
            {
                "apiVersion": "iam.openfaas.com/v1",
                "kind": type(each).__name__,
                "metadata": {"name": each.name},
                "spec": spec(each),
            }
        )
        for each in (
            issuer(name="github"),
            free,
            pinned("r", repository_id="1", ref="refs/heads/main"),
        )
    )
    assembled = assemble([parse("all.yaml", text.encode())])
    assert assembled.catalog is None
    assert [p.code for p in assembled.problems if p.code[0] != "W"] == ["T006"]


# Objects of Kubernetes

GET, CREATE = "Function:Get", "Function:Create"
ROLE = objects.role("r", "give")
GIVE = objects.policy("give", objects.allow(GET))


def following(claim: str, *more: objects.Raw) -> objects.Raw:
    """The Policy `give`, on namespaces that follow *claim*."""
    return objects.policy("give", objects.allow(GET, f"${{jwt:{claim}}}:*"), *more)


def test_a_policy_that_becomes_open_to_callers_gives_nothing_and_stops_no_other() -> None:
    other = objects.policy("other", objects.allow(CREATE))
    space = Namespace(objects.issuer(), GIVE, other, ROLE, objects.role("o", "other"))
    assert (space.answer(PUSH, GET), space.answer(PUSH, CREATE)) == ("yes", "yes")
    space.apply(following("workflow"))
    assert space.standing("Role", "r") is Standing.REFUSED
    assert "T006" in space.codes("Role", "r")
    assert (space.answer(PUSH, GET), space.answer(PUSH, CREATE)) == ("no", "yes")
    space.apply(GIVE)
    assert space.answer(PUSH, GET) == "yes"


def test_a_policy_that_becomes_open_to_callers_and_denies_refuses_them() -> None:
    space = Namespace(objects.issuer(), GIVE, ROLE)
    space.apply(following("workflow", objects.deny(CREATE)))
    assert space.standing("Role", "r") is Standing.REFUSED
    assert space.answer(PUSH, GET) == "policy_missing"


def test_a_policy_that_follows_an_id_is_in_force() -> None:
    space = Namespace(objects.issuer(), following("repository_owner_id"), ROLE)
    assert space.standing("Role", "r") is Standing.ACCEPTED
    assert "W122" not in space.codes("Role", "r")


def test_fixtures_are_of_the_kinds_that_they_claim() -> None:
    assert all(isinstance(each, JwtIssuer) for each in ISSUERS.values())
