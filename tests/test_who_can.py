"""The answers of `who_can` and `what_can`; tests/test_cli_asking.py has the command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.model import Policy, Role
from federation.policy.conditions import Condition, Operator, holds
from federation.policy.explain import Explanation, explain
from federation.policy.permissions import Access
from federation.policy.roles import Admission
from federation.policy.who_can import WhoCan, what_can, who_can
from federation.tokens.mint import access_claims
from tests.harness import generators, second_evaluator
from tests.harness.builders import GENERIC, GITHUB, GITLAB, catalog, pinned, policy, role
from tests.harness.generators import PROVIDERS, Plain

ASKED = Access.parse("Function:Create", "dev:fn")
DEPLOY = policy("deploy", {"action": ["Function:Create"], "resource": ["dev:*"]})
MAIN = pinned("main", repository_id="1", ref="refs/heads/main")


def names(found: WhoCan) -> list[str]:
    """The Roles by which the access is open."""
    return [way.role.name for way in found.ways if way.open]


def denying(**statement: Any) -> Policy:
    """A Policy that denies the access, under the conditions of *statement*."""
    return policy(
        "guard",
        {"sid": "no", "effect": "Deny", "action": ["Function:*"], "resource": ["*"], **statement},
    )


def test_each_role_is_named_with_the_statement_and_what_a_token_must_say() -> None:
    other = role("other", policy=["none"], condition={"StringEqual": {"jwt:iss": GITHUB}})
    none = policy("none", {"action": ["Function:Create"], "resource": ["prod:*"]})
    found = who_can(catalog(other, MAIN, policies=[DEPLOY, none]), ASKED)
    assert found.as_json() == {
        "action": "Function:Create",
        "resource": "dev:fn",
        "roles": [
            {
                "name": "main",
                "policy": "deploy",
                "sid": "s0",
                "conditions": [
                    {"operator": "StringEqual", "key": f"jwt:{k}", "values": [v], "of": "role"}
                    for k, v in (
                        ("iss", GITHUB),
                        ("repository_id", "1"),
                        ("ref", "refs/heads/main"),
                    )
                ],
                "denied_by": [],
                "unless_narrowed": False,
                "shadowed": False,
            }
        ],
        "notes": [],
    }
    assert found.anybody
    assert not who_can(catalog(other, policies=[none]), ASKED).anybody


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ({"StringEqual": {"jwt:iss": "https://nobody.example"}}, "no such issuer"),
        ({"StringEqual": {"jwt:iss": GITHUB, "jwt:ref": "a"}, "StringLike": {"jwt:ref": "b*"}}, "two"),
        ({"StringEqual": {"jwt:iss": GITHUB, "jwt:/ref": "a"}, "StringNotEqual": {"jwt:ref": "a"}}, "not"),
        ({"StringEqual": {"jwt:iss": GITHUB, "jwt:g": "a"},
          "ForAnyValue:StringEqual": {"jwt:g": "a"}}, "a list and one value"),
        ({"StringEqual": {"jwt:iss": GITHUB, "jwt:ref": ""}}, "empty"),
        ({"StringEqual": {"jwt:iss": GITHUB}, "ForAnyValue:StringEqual": {"jwt:sub": "a"}}, "no list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_role_that_no_token_satisfies_is_not_named(condition: Plain, why: str) -> None:
    assert why
    assert not who_can(catalog(role("r", condition=condition), policies=[DEPLOY]), ASKED).ways


def test_a_role_without_conditions_or_without_one_of_its_policies_gives_nothing() -> None:
    bare = Role("bare", ("deploy",), ())
    lacking = replace(MAIN, name="lacking", policies=("deploy", "gone"))
    found = who_can(catalog(bare, lacking, policies=[DEPLOY]), ASKED)
    assert not found.ways
    (note,) = found.notes
    assert "Role lacking names the Policy gone" in note


def test_a_role_that_cannot_be_read_is_told() -> None:
    snapshot = replace(catalog(MAIN, policies=[DEPLOY]), refusing=(replace(MAIN, name="broken"),))
    (note,) = who_can(snapshot, ASKED).notes
    assert "Role broken" in note


@pytest.mark.parametrize(
    ("condition", "denials"),
    [
        ({}, [True]),
        ({"StringEqual": {"jwt:ref": "refs/heads/main"}}, [True]),
        ({"StringNotEqual": {"jwt:ref": "refs/heads/main"}}, []),
        ({"StringEqual": {"jwt:ref": "refs/heads/other"}}, []),
        ({"StringNotLike": {"jwt:environment": "dev"}}, [False]),
        ({"StringEqual": {"jwt:repository_id": "1"}, "StringLike": {"jwt:actor": "x"}}, [False]),
        ({"StringEqual": {"jwt:fed:iss": GITHUB}}, [True]),
        ({"StringEqual": {"jwt:fed:iss": GITLAB}}, []),
        ({"StringEqual": {"jwt:nonce": "n"}}, [True]),
        ({"StringEqual": {"jwt:role": "main"}}, [True]),
        ({"ForAnyValue:StringEqual": {"jwt:role": "main"}}, [True]),
        ({"ForAnyValue:StringEqual": {"jwt:role": "other"}}, [False]),
        ({"ForAnyValue:StringEqual": {"jwt:policy": "deploy"}}, [True]),
        ({"StringEqual": {"jwt:sub": "fed:x"}}, [False]),
    ],
    ids=str,
)
def test_a_deny_is_told_as_far_as_it_applies(condition: Plain, denials: list[bool]) -> None:
    guarded = replace(MAIN, policies=("deploy", "guard"))
    found = who_can(catalog(guarded, policies=[DEPLOY, denying(condition=condition)]), ASKED)
    (way,) = found.ways
    assert [denial.always for denial in way.denied_by] == denials
    assert all((denial.policy, denial.sid) == ("guard", "no") for denial in way.denied_by)
    assert found.anybody == (True not in denials)


@pytest.mark.parametrize(
    ("changes", "denials"),
    [
        ({}, [True]),
        ({"ref": "refs/heads/main"}, [True]),
        ({"environment": "prod"}, [False]),
        ({"ref": "refs/heads/other"}, []),
        ({"iss": GITLAB}, []),
    ],
    ids=str,
)
def test_a_deny_that_another_role_brings_along_is_told(
    changes: dict[str, str], denials: list[bool]
) -> None:
    brings = replace(pinned("brings", **changes), policies=("guard",))
    (way,) = who_can(catalog(MAIN, brings, policies=[DEPLOY, denying()]), ASKED).ways
    assert [(d.always, d.role) for d in way.denied_by] == [(a, "brings") for a in denials]


def test_a_role_that_does_not_name_the_event_does_not_always_bring_its_deny() -> None:
    named = pinned("named", repository_id="1", event_name="issues")
    brings = replace(pinned("brings", repository_id="1"), policies=("guard",))
    found = who_can(catalog(named, brings, policies=[DEPLOY, denying()]), ASKED)
    assert names(found) == ["named"], "an outsider's event is admitted by this Role alone"


@pytest.mark.parametrize(
    ("condition", "can"),
    [
        ({"StringEqual": {"jwt:ref": "refs/heads/main"}}, True),
        ({"StringEqual": {"jwt:ref": "refs/heads/other"}}, False),
        ({"StringEqual": {"jwt:nonce": "n"}}, False),
        ({"StringEqual": {"jwt:sub": "repo:a/b"}}, False),
        ({"StringEqual": {"jwt:sub": "fed:repo:a/b"}}, True),
        ({"StringEqual": {"jwt:fed:iss": GITHUB}}, True),
        ({"StringEqual": {"jwt:fed:iss": GITLAB}}, False),
        ({"StringEqual": {"jwt:role": "main"}}, False),
        ({"ForAnyValue:StringEqual": {"jwt:role": "main"}}, True),
        ({"StringEqual": {"jwt:fed:made-up": "x"}}, False),
        ({"StringEqual": {"jwt:iss": "https://gateway.example.com"}}, True),
    ],
    ids=str,
)
def test_the_conditions_of_a_statement_are_about_the_access_token(
    condition: Plain, can: bool
) -> None:
    give = policy(
        "deploy", {"action": ["*"], "resource": ["*"], "sid": "all", "condition": condition}
    )
    found = who_can(catalog(MAIN, policies=[give]), ASKED)
    assert found.anybody == can
    for way in found.ways:
        assert way.unless_narrowed == ("jwt:role" in str(condition))
        of = [each["of"] for each in way.as_json()["conditions"]]  # type: ignore[attr-defined]
        assert of == ["role"] * 3 + ["statement"]


def test_calls_of_functions_have_no_regard_to_case() -> None:
    call = policy("deploy", {"action": ["Function:Invoke"], "resource": ["dev:figlet"]})
    snapshot = catalog(MAIN, policies=[call])
    assert who_can(snapshot, Access.parse("Function:Invoke", "dev:FIGLET")).anybody


LISTING = Access.parse("Namespace:List", "*")


@pytest.mark.parametrize(
    ("statements", "denials"),
    [
        ([{"resource": ["*"]}], []),
        ([{"resource": ["dev:*"]}], []),
        ([{"resource": ["dev:*"], "action": ["Function:Get"]}], None),
        ([{"resource": ["team-${jwt:ref}:*"]}], None),
        ([{"resource": ["team-${jwt:repository_id}:*"]}], []),
        ([{"resource": ["dev:*"]}, {"resource": ["*"], "effect": "Deny"}], [True]),
        ([{"resource": ["dev:*"]}, {"resource": ["dev:*"], "effect": "Deny"}], [True]),
        ([{"resource": ["dev:*"]}, {"resource": ["prod:*"], "effect": "Deny"}], []),
        ([{"resource": ["dev:*", "a:*"]}, {"resource": ["dev:*"], "effect": "Deny"}], []),
        (
            [
                {"resource": ["team-${jwt:repository_id}:*"]},
                {"resource": ["team-1:*"], "effect": "Deny"},
            ],
            [True],
        ),
        (
            [
                {"resource": ["t-${jwt:environment}:*"]},
                {"resource": ["t-a:*"], "effect": "Deny"},
            ],
            [False],
        ),
        (
            [
                {"resource": ["t-${jwt:environment}:*"]},
                {"resource": ["t-*:*"], "effect": "Deny"},
            ],
            [True],
        ),
    ],
    ids=lambda value: str(value)[:70],
)
def test_the_list_of_namespaces_is_given_by_any_part_of_it(
    statements: list[dict[str, Any]], denials: list[bool] | None
) -> None:
    written = [
        {"sid": f"s{n}", "action": ["Namespace:List"], **each} for n, each in enumerate(statements)
    ]
    found = who_can(catalog(MAIN, policies=[policy("deploy", *written)]), LISTING)
    ways = [[denial.always for denial in way.denied_by] for way in found.ways]
    assert ways == ([] if denials is None else [denials])
    assert found.anybody is (denials is not None and True not in denials)


def test_a_way_to_the_list_of_namespaces_says_which_claims_a_token_must_have() -> None:
    own = {"action": ["Namespace:List"], "resource": ["t-${jwt:environment}:*"]}
    (way,) = who_can(catalog(MAIN, policies=[policy("deploy", own)]), LISTING).ways
    assert way.reaches == (Condition(Operator.STRING_LIKE, "jwt:environment", ("*",)),)


def test_what_a_role_gives_is_the_other_way_round() -> None:
    guarded = replace(MAIN, policies=("deploy", "guard", "gone"))
    found = what_can(catalog(guarded, policies=[DEPLOY, denying()]), "main")
    written = found.as_json()
    assert written["role"] == "main"
    grants = written["grants"]
    assert isinstance(grants, list)
    assert [(g["policy"], g["sid"], g["effect"]) for g in grants] == [
        ("deploy", "s0", "Allow"),
        ("guard", "no", "Deny"),
    ]
    assert grants[0]["actions"] == ["Function:Create"]
    assert grants[0]["resources"] == ["dev:*"]
    assert "gone" in found.notes[0]
    with pytest.raises(KeyError):
        what_can(catalog(MAIN), "nobody")


def test_ten_thousand_roles_are_asked_within_bounds() -> None:
    many = [
        replace(
            pinned(f"r{n}", repository_id=str(n), ref="refs/heads/main"),
            policies=("deploy", f"guard-{n % 50}"),
        )
        for n in range(10_000)
    ]
    guards = [replace(denying(condition={"StringEqual": {"jwt:x": "1"}}), name=f"guard-{n}") for n in range(50)]  # fmt: skip
    found = who_can(catalog(*many, policies=[DEPLOY, *guards]), ASKED)
    assert len(found.ways) == 10_000
    assert any("too many Roles" in note for note in found.notes)


# -- compared with the evaluation that decides


def explained(snapshot: Catalog, claims: Plain, access: Access) -> Explanation:
    """What the broker decides about a verified token with *claims*."""

    def minted(admission: Admission) -> Claims:
        return access_claims(
            Claims(claims), admission, issuer_url="https://broker.example", now=1.0, jti="j"
        )

    return explain(
        snapshot, Claims(claims), [access], refusal=None, verified=True, access_claims=minted
    )


def documents(rng: Random, near: Plain) -> tuple[dict[str, Plain], Catalog]:
    """Generated Roles about claims like *near*, as they are written, and a catalog with them."""
    policies = [
        policy(f"p{n}", *generators.statements(rng, near, ["r0", "r1"], conditional=0.3))
        for n in range(3)
    ]
    specs: dict[str, Plain] = {}
    for number in range(rng.randint(1, 3)):
        if rng.random() < 0.3:
            spec = generators.admitting_role(rng, near, ["p0", "p1", "p2"])
        else:
            spec = generators.role(rng, near, ["p0", "p1", "p2"])
        specs[f"r{number}"] = spec
    roles = [role(name, **spec) for name, spec in specs.items()]
    return specs, catalog(*roles, policies=policies)


def changed(rng: Random, near: Plain) -> Plain:
    """Claims like *near*, of which some are others."""
    others = generators.claims(rng)
    return {
        name: others.get(name) if rng.random() < 0.15 else value
        for name, value in (others | near).items()
    } | {"iss": near["iss"], "sub": str(near.get("sub") or "s")}


@pytest.mark.parametrize("seed", range(10))
def test_a_role_that_is_not_named_never_gives_the_access(seed: int) -> None:
    allowed = sum(_compared(Random(f"{seed} {number}")) for number in range(60))  # noqa: S311
    assert allowed > 5


def _compared(rng: Random) -> int:
    """Compare who_can with decisions. Return how many of them were yes."""
    allowed = 0
    near = generators.claims(rng)
    specs, snapshot = documents(rng, near)
    access = Access.parse(rng.choice(["Function:Get", "Secret:List", "Function:Invoke"]),
                          generators.asked(rng))  # fmt: skip
    found = who_can(snapshot, access)
    ways = {(w.role.name, w.policy, w.statement.sid) for w in found.ways if w.open}
    for _ in range(12):
        claims = changed(rng, near)
        told = explained(snapshot, claims, access)
        admitted = [e.role.name for e in told.evaluations if e.admits]
        assert admitted == second_evaluator.admitting(specs, PROVIDERS, claims)
        (decision,) = told.decisions
        if decision.allowed:
            by = {(name, decision.policy, decision.sid) for name in admitted}
            assert by & ways, (specs, claims, decision)
            allowed += 1
    return allowed


def witness(rng: Random, conditions: Sequence[Condition], near: Plain) -> Plain | None:
    """Claims that satisfy all *conditions*, None if none are found."""
    made: Plain = {
        **near,
        "event_name": "push",
        "pipeline_source": "push",
        "job_project_id": near.get("project_id"),
        "sub": "s",
    }
    by_path: dict[tuple[str, ...], list[Condition]] = {}
    for condition in conditions:
        by_path.setdefault(condition.path, []).append(condition)
    for path, about in by_path.items():
        value = next((v for v in _candidates(rng, about) if all(
            holds([c], _at(path, v)) for c in about)), None)  # fmt: skip
        if value is None:
            return None
        if len(path) == 1:
            made[path[0]] = value
        else:
            _put(made, path, value)
    return made if holds(conditions, Claims(made)) else None


def _candidates(rng: Random, about: Sequence[Condition]) -> Iterator[Any]:
    written = [value for condition in about for value in condition.values]
    texts = [v.replace("*", star).replace("?", "q") for v in written for star in ("", "x", "/")]
    texts += ["some other value", generators.word(rng), "1"]
    if any(condition.operator.of_list for condition in about):
        yield from ([text] for text in texts)
        yield texts
    else:
        yield from texts


def _at(path: Sequence[str], value: object) -> Claims:
    made: Plain = {}
    _put(made, path, value)
    return Claims(made)


def _put(claims: Plain, path: Sequence[str], value: object) -> None:
    here = claims
    for step in path[:-1]:
        inner = here.get(step)
        here[step] = dict(inner) if isinstance(inner, dict) else {}
        here = here[step]
    here[path[-1]] = value


def test_a_role_that_is_named_gives_the_access_to_a_token_that_says_so() -> None:
    counted = Counter[str]()
    for seed in range(600):
        rng = Random(seed)  # noqa: S311
        near = generators.claims(rng)
        specs, snapshot = documents(rng, near)
        access = Access.parse(rng.choice(["Function:Get", "Secret:List"]), generators.asked(rng))
        for way in who_can(snapshot, access).ways:
            read = (*way.statement.conditions, *way.reaches)
            if way.denied_by or any(c.path[0] in {"role", "policy", "iss", "sub"} for c in read):
                continue
            claims = witness(rng, (*way.role.conditions, *read), near)
            admitted = claims and second_evaluator.admitting(specs, PROVIDERS, claims)
            if not claims or not admitted or way.role.name not in admitted:
                counted["no witness"] += 1
                continue
            told = explained(snapshot, claims, access)
            assert way.role.name in [e.role.name for e in told.evaluations if e.admits]
            assert told.yes, (specs, claims, access)
            counted["gives"] += 1
    assert counted["gives"] > 150
    assert counted["gives"] > 4 * counted["no witness"], counted


# -- variables in resources


def with_variables(
    *resources: str, effect: str = "Allow", name: str = "deploy", **more: Any
) -> Policy:
    """A Policy with one statement on these resources."""
    return policy(
        name, {"effect": effect, "action": ["Function:*"], "resource": list(resources), **more}
    )


def demanded_of(found: WhoCan) -> list[dict[str, list[str]]]:
    """What the resources demand of a token, for each open way."""
    return [{c.key: list(c.values) for c in way.reaches} for way in found.ways if way.open]


@pytest.mark.parametrize(
    ("pins", "resources", "demands"),
    [
        ({}, ["${jwt:x}:*"], [{"jwt:x": ["dev"]}]),
        ({}, ["d${jwt:/x}:fn"], [{"jwt:x": ["ev"]}]),
        ({}, ["${jwt:/n/a}:*"], [{"jwt:/n/a": ["dev"]}]),
        ({}, ["${jwt:x}:${jwt:x}"], []),
        ({}, ["${jwt:x}:${jwt:y}"], [{"jwt:x": ["dev"], "jwt:y": ["fn"]}]),
        ({}, ["${jwt:x}v:*", "${jwt:x}:*"], [{"jwt:x": ["de", "dev"]}]),
        ({}, ["${jwt:x}:*", "dev:*"], [{}]),
        ({}, ["${jwt:x}*:*"], [{"jwt:x": ["d", "de", "dev"]}]),
        ({}, ["*${jwt:x}*:*"], [{"jwt:x": ["d", "de", "dev", "e", "ev", "v"]}]),
        ({}, ["team-${jwt:x}:*"], []),
        ({}, ["${jwt:sub}:*"], []),
        ({}, ["${jwt:nonce}:*"], []),
        ({}, ["${jwt:iss}:*", "${jwt:aud}:*"], []),
        ({}, ["${jwt:jti}:*"], [{"jwt:jti": ["dev"]}]),
        ({}, ["${jwt:role}:*"], []),
        ({}, ["${jwt:/role/0}:*"], [{"jwt:/role/0": ["dev"]}]),
        ({"repository_id": "1"}, ["${jwt:repository_id}:*"], []),
        ({"repository_id": "dev"}, ["${jwt:repository_id}:*"], [{"jwt:repository_id": ["dev"]}]),
        ({"x": ["prod", "dev", "d"]}, ["${jwt:x}*:*"], [{"jwt:x": ["dev", "d"]}]),
        ({"x": ["Dev", "prod"]}, ["${jwt:x}:*"], []),
    ],
    ids=str,
)  # fmt: skip
def test_variables_are_solved_together_with_what_the_role_pins(
    pins: Plain, resources: list[str], demands: list[dict[str, list[str]]]
) -> None:
    block: Plain = {"StringEqual": {"jwt:iss": GITHUB, **{f"jwt:{k}": v for k, v in pins.items()}}}
    found = who_can(
        catalog(role("r", condition=block), policies=[with_variables(*resources)]), ASKED
    )
    told = [{key: sorted(values) for key, values in each.items()} for each in demanded_of(found)]
    assert told == [{key: sorted(values) for key, values in each.items()} for each in demands]
    assert found.anybody == bool(demands)
    for way in found.ways:
        assert way.unless_narrowed == ("role" in str(resources))
        of = [each for each in way.as_json()["conditions"] if each["of"] == "resource"]  # type: ignore[attr-defined]
        assert [each["key"] for each in of] == [c.key for c in way.reaches]


@pytest.mark.parametrize(
    ("pins", "resource", "denials"),
    [
        ({"x": "dev"}, "${jwt:x}:*", [True]),
        ({"x": "prod"}, "${jwt:x}:*", []),
        ({"x": ["prod", "dev"]}, "${jwt:x}:*", [False]),
        ({"x": "A"}, "${jwt:x}:*", [True]),
        ({"x": ["A", "dev"]}, "${jwt:x}:*", [True]),
        ({"x": ["A", "prod"]}, "${jwt:x}:*", [False]),
        ({}, "${jwt:x}:*", [False]),
        ({}, "${jwt:x}:other", []),
        ({}, "${jwt:nonce}:*", [True]),
        ({"jti": "prod"}, "${jwt:jti}:*", [False]),
        ({"x": "A"}, "${jwt:x}:${jwt:y}", [False]),
        ({"x": "prod"}, "${jwt:x}:${jwt:y}", []),
        ({"x": "prod"}, "${jwt:x}${jwt:nonce}:fn", [True]),
        ({"x": "A"}, "team-${jwt:x}:*", [True]),
    ],
    ids=str,
)  # fmt: skip
def test_a_deny_with_variables_is_told_as_far_as_it_applies(
    pins: Plain, resource: str, denials: list[bool]
) -> None:
    block: Plain = {"StringEqual": {"jwt:iss": GITHUB, **{f"jwt:{k}": v for k, v in pins.items()}}}
    one = role("r", policy=["deploy", "guard"], condition=block)
    guard = with_variables(resource, effect="Deny", name="guard")
    (way,) = who_can(catalog(one, policies=[DEPLOY, guard]), ASKED).ways
    assert [denial.always for denial in way.denied_by] == denials


@pytest.mark.parametrize(
    ("resource", "asked", "can"),
    [
        ("${jwt:x}:*", "Dev:fn", False),
        ("d${jwt:x}:*", "d-ev:fn", False),
        ("d-${jwt:x}:*", "d-ev:fn", True),
        ("${jwt:x}:*", f"{'a' * 64}:fn", False),
        ("${jwt:x}:*", "de.v:fn", False),
        ("*${jwt:x}:*", "de.v:fn", True),
    ],
)
def test_only_values_that_count_are_demanded(resource: str, asked: str, *, can: bool) -> None:
    access = Access.parse("Function:Get", asked)
    assert who_can(catalog(MAIN, policies=[with_variables(resource)]), access).anybody == can


@pytest.mark.parametrize(
    ("pins", "always"), [(["dev"], True), (["dev", "prod"], True), (["prod"], None)], ids=str
)
def test_a_deny_of_another_role_always_applies_where_its_pins_follow(
    pins: list[str], always: bool | None
) -> None:
    brings = replace(pinned("brings", x=pins), policies=("guard",))
    gives = replace(pinned("gives"), policies=("deploy",))
    (way,) = who_can(
        catalog(gives, brings, policies=[with_variables("${jwt:x}:*"), denying()]), ASKED
    ).ways
    assert [denial.always for denial in way.denied_by] == ([] if always is None else [always])


def test_a_resource_with_endless_ways_to_fill_it_is_told_and_not_searched() -> None:
    wild = "${jwt:a}*" * 12
    found = who_can(
        catalog(MAIN, policies=[with_variables(f"{wild}:*")]),
        Access.parse("Function:Get", "a" * 60 + ":fn"),
    )
    assert found.anybody
    assert any("so many variables" in note for note in found.notes)


def test_what_a_role_gives_is_told_with_the_values_that_it_pins() -> None:
    pins = pinned("r", repository_owner_id="65", repository_owner="Acme")
    give = with_variables(
        "team-${jwt:repository_owner_id}:*", "${jwt:ref}:*", "${jwt:repository_owner}:*", "x:*"
    )
    take = with_variables("${jwt:repository_owner}:${jwt:ref}", effect="Deny", name="guard")
    snapshot = catalog(replace(pins, policies=("deploy", "guard")), policies=[give, take])
    grants: Any = what_can(snapshot, "r").as_json()["grants"]
    assert grants[0]["filled"] == ["team-65:*", "${jwt:ref}:*", "x:*"]
    assert grants[1]["filled"] == ["*:${jwt:ref}"]


_VALUES: Sequence[Any] = [None, "dev", "1", "fn", "A", ["dev"], "dev-1"]
_FORMS = ["{}:*", "dev-{}:*", "{}-{}:*", "dev:{}", "{}:{}", "dev:*", "de*:*"]


def _universe_documents(rng: Random, action: str = "Function:*") -> tuple[Catalog, list[Plain]]:
    """Documents on *action* by the claims `x` and `y`, and all tokens that there are."""

    def resource() -> str:
        form = rng.choice(_FORMS)
        chosen = (rng.choice(["${jwt:x}", "${jwt:y}"]) for _ in range(form.count("{}")))
        return form.format(*chosen)

    def block() -> Plain:
        texts = [value for value in _VALUES if isinstance(value, str)]
        named = {
            f"jwt:{key}": rng.sample(texts, k=rng.randint(1, 2))
            for key in "xy"
            if rng.random() < 0.5
        }
        return {"StringEqual": {"jwt:iss": GENERIC, **named}}

    policies = [
        with_variables(resource(), resource(), name=f"p{n}", action=[action]) for n in range(2)
    ]
    if rng.random() < 0.6:
        condition = {"StringEqual": {"jwt:y": ["dev"]}} if rng.random() < 0.3 else {}
        policies.append(
            with_variables(
                resource(), effect="Deny", name="guard", condition=condition, action=[action]
            )
        )
    roles = [
        role(f"r{n}", policy=rng.sample([p.name for p in policies], k=rng.randint(1, len(policies))),
             condition=block())
        for n in range(2)
    ]  # fmt: skip
    tokens = [
        {"iss": GENERIC, "sub": "s"} | {k: v for k, v in (("x", x), ("y", y)) if v is not None}
        for x in _VALUES
        for y in _VALUES
    ]
    return catalog(*roles, policies=policies), tokens


def test_who_can_is_what_trying_every_token_finds() -> None:
    counted = Counter[bool]()
    for seed in range(120):
        rng = Random(seed)  # noqa: S311
        snapshot, tokens = _universe_documents(rng)
        for resource in ("dev:fn", "dev-1:fn", "1:dev", "dev:1"):
            access = Access.parse("Function:Get", resource)
            found = {way.role.name for way in who_can(snapshot, access).ways if way.open}
            tried = set[str]()
            for claims in tokens:
                told = explained(snapshot, claims, access)
                if told.decisions[0].allowed:
                    tried |= _giving(snapshot, told, claims, access)
            assert found == tried, (seed, resource)
            counted[bool(found)] += 1
    assert min(counted.values()) > 70, counted


def test_who_can_list_namespaces_is_what_trying_every_token_finds() -> None:
    counted = Counter[int]()
    for seed in range(150):
        rng = Random(seed)  # noqa: S311
        snapshot, tokens = _universe_documents(rng, "Namespace:List")
        found = {way.role.name for way in who_can(snapshot, LISTING).ways if way.open}
        tried = set[str]()
        for claims in tokens:
            told = explained(snapshot, claims, LISTING)
            if told.decisions[0].allowed:
                tried |= _giving(snapshot, told, claims, LISTING)
        assert found == tried, seed
        counted[len(found)] += 1
    assert counted[1] > 5, counted


def _giving(snapshot: Catalog, told: Explanation, claims: Plain, access: Access) -> set[str]:
    """The Roles of a token that is allowed *access* which give it, each by its own Policies."""
    giving = set[str]()
    for evaluation in told.evaluations:
        if evaluation.admits:
            alone = replace(snapshot, roles=(evaluation.role,))
            if explained(alone, claims, access).decisions[0].allowed:
                giving.add(evaluation.role.name)
    return giving
