"""Generate random documents and claims, with many values that almost match."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from tests.harness.builders import GENERIC, GITHUB, GITLAB

Json = Any
Plain = dict[str, Any]

PROVIDERS = {GITHUB: "github", GITLAB: "gitlab", GENERIC: "generic"}

# Letters that equal others only by a wrong rule: the Kelvin sign, the long s, a letter outside
# the basic plane, a composed and a decomposed é. And separators and wildcards.
LETTERS = [
    *("a", "b", "k", "K", "\u212a", "s", "S", "\u017f", "/", ":", "\n", "*", "?"),
    *("\U0001d4b3", "\u00e9", "e\u0301"),
]

_OWNERS = ["acme", "Acme", "acme-evil", "ac"]
_PATHS = ["acme/app", "acme/app-2", "Acme/app", "acme-evil/app", "acme/sub/app", "acme"]
_IDS = ["1", "12", "2", "true"]
POOLS: dict[str, list[str]] = {
    "repository": _PATHS,
    "repository_owner": _OWNERS,
    "repository_owner_id": _IDS,
    "repository_id": _IDS,
    "project_id": _IDS,
    "project_path": _PATHS,
    "namespace_id": _IDS,
    "namespace_path": [*_OWNERS, "acme/sub"],
    "job_project_id": _IDS,
    "job_project_path": _PATHS,
    "workflow_ref": ["acme/app/.github/w.yml@refs/heads/main", "acme-evil/app/w.yml@main"],
    "sub": [
        "repo:acme/app:ref:refs/heads/main",
        "repo:acme@1/app@2:environment:prod",
        "repo:acme-evil/app:pull_request",
        "project_path:acme/app:ref_type:branch:ref:main",
        "repository_owner:acme",
        "1",
    ],
    "ref": ["refs/heads/main", "refs/heads/release/1", "refs/tags/v1", "main"],
    "event_name": ["push", "push", "schedule", "release", "pull_request_target", "gollum"],
    "pipeline_source": ["push", "merge_request_event"],
    "groups": ["ops", "dev", "k", "\u212a"],
    "https://x.example/c#d:e": ["k", "\u212a", "s", "\u017f", "\n", "a/b:c"],
    "": ["a"],
}
_ODD: list[Json] = [
    *(None, "", [], {}, [""], True, False, 0, 1, -1, 1.0, 1.5),
    *(["ops"], ["ops", 1, None, ""], [["ops"]], {"a": "b"}, 10**30),
]
_NESTED = [
    "jwt:/n/a",
    "jwt:/n/b~1c",
    "jwt:/n/d~0e/0",
    "jwt:/n/d~0e/1",
    "jwt:/n/d~0e/01",
    "jwt:/n/x",
]

_SCALAR = [
    *("StringEqual", "StringEquals", "StringEqualIgnoreCase", "StringEqualsIgnoreCase"),
    *("StringLike", "StringNotEqual", "StringNotEquals", "StringNotLike"),
]
_OPERATORS = [*_SCALAR, "StringEqual", "StringLike", "StringLike"]
_OF_LISTS = ["ForAnyValue:StringEqual", "ForAnyValue:StringLike"]


def word(rng: Random, most: int = 10) -> str:
    """A short text of these letters."""
    return "".join(rng.choices(LETTERS, k=rng.randint(0, most)))


def globbed(rng: Random, value: str) -> str:
    """A pattern that mostly matches *value*: parts of it become `*`, `?` or other letters."""
    pattern = value
    for _ in range(rng.randint(0, 4)):
        start = rng.randint(0, len(pattern))
        stop = min(len(pattern), start + rng.randint(0, 3))
        pattern = (
            pattern[:start] + rng.choice(["*", "?" * (stop - start), "*", "a"]) + pattern[stop:]
        )
    if rng.random() < 0.2:
        pattern = pattern[: rng.randint(0, len(pattern))] + "*"
    return pattern


def claims(rng: Random) -> Plain:
    """Claims of a token from one of the configured issuers."""
    made: Plain = {"iss": rng.choice(list(PROVIDERS))}
    for claim, pool in POOLS.items():
        if rng.random() < 0.8:
            made[claim] = rng.choice(_ODD) if rng.random() < 0.12 else rng.choice(pool)
    if rng.random() < 0.7:
        made["groups"] = [
            rng.choice([*POOLS["groups"], "", 1, None]) for _ in range(rng.randint(0, 3))
        ]
    if rng.random() < 0.7:
        made["n"] = {"a": word(rng, 3), "b/c": rng.choice(_ODD), "d~e": [word(rng, 2), 1]}
    return made


def _key(claim: str) -> str:
    """The key of a top-level claim. The claim with an empty name needs a JSON pointer."""
    return f"jwt:{claim or '/'}"


def _wanted(rng: Random, key: str, near: Plain, pattern: bool) -> Json:
    """One value of a condition, mostly one that is almost in the claims *near*."""
    name = "" if key == "jwt:/" else key.removeprefix("jwt:")
    claim = near.get(name)
    if isinstance(claim, list) and claim:
        claim = rng.choice(claim)
    fitting = isinstance(claim, str | int) and rng.random() < 0.7
    value = claim if fitting else rng.choice(POOLS.get(name, LETTERS))
    if pattern and isinstance(value, str):
        return globbed(rng, value)
    if isinstance(value, str) and rng.random() < 0.15:
        return rng.choice([value.swapcase(), value + "x", value.upper(), value[:-1], value + "/"])
    return value


def _keyed(rng: Random, keys: list[str], near: Plain, pattern: bool) -> Plain:
    made: Plain = {}
    for key in keys:
        several = [_wanted(rng, key, near, pattern) for _ in range(rng.choice([1, 1, 2, 3]))]
        made[key] = several[0] if len(several) == 1 and rng.random() < 0.5 else several
    return made


def block(rng: Random, near: Plain, most: int = 3) -> Plain:
    """A condition block with up to *most* operators, about claims like *near*."""
    made: Plain = {}
    for _ in range(rng.randint(1, most)):
        if rng.random() < 0.12:
            operator, keys = rng.choice(_OF_LISTS), ["jwt:groups"]
        elif rng.random() < 0.12:
            operator, keys = rng.choice(_SCALAR), [rng.choice(_NESTED)]
        else:
            operator = rng.choice(_OPERATORS)
            keys = [_key(claim) for claim in rng.sample(list(POOLS), k=rng.choice([1, 1, 1, 2]))]
        made[operator] = made.get(operator, {}) | _keyed(rng, keys, near, "Like" in operator)
    return made


def role(rng: Random, near: Plain, policies: Sequence[str] = ("p",)) -> Plain:
    """The spec of a Role that names its issuers exactly, about claims like *near*."""
    spec: Plain = {
        "policy": rng.sample(policies, k=rng.randint(1, min(2, len(policies)))),
        "condition": block(rng, near) if rng.random() < 0.9 else {},
    }
    others = rng.sample([*PROVIDERS, "https://nobody.example"], k=rng.choice([0, 0, 1, 2]))
    usual = near["iss"] if rng.random() < 0.9 else GITHUB
    exact = rng.choice(["StringEqual", "StringEquals"])
    issuers = list(dict.fromkeys([usual, *others]))
    spec["condition"][exact] = spec["condition"].get(exact, {}) | {"jwt:iss": issuers}
    if rng.random() < 0.3:
        keys = [_key(claim) for claim in rng.sample([*POOLS, "iss"], k=rng.choice([1, 1, 2]))]
        spec["principal"] = _keyed(rng, keys, near, pattern=False)
    return spec


def admitting_role(rng: Random, near: Plain, policies: Sequence[str]) -> Plain:
    """The spec of a Role that admits every token from the issuer of *near*."""
    spec: Plain = {
        "policy": rng.sample(policies, k=rng.randint(1, min(3, len(policies)))),
        "condition": {"StringEqual": {"jwt:iss": near["iss"]}},
    }
    if rng.random() < 0.4:
        spec["minutes"] = rng.randint(1, 20)
    return spec


def unreadable(rng: Random) -> Json:
    """A claim that no operator can compare with anything."""
    return rng.choice([None, "", [], {}, [""], [1], [None, 1.5], 1.5])


_HALVES = [
    *("dev", "dev-2", "team-a", "team-*", "*", "d*", "*v", "fn", "f*", "*-*", "**", "a.b_c"),
    *("de*", "de*2", "d*-*", "t*-*", "team*"),  # beginnings within beginnings
]
_VARIABLES = [
    *("${jwt:repository_owner}", "${jwt:repository_owner_id}", "${jwt:/repository_id}"),
    *("${jwt:/n/a}", "${jwt:ref}", "${jwt:groups}", "${jwt:nonce}", "${jwt:/role/0}"),
]
_WITH_VARIABLES = ["{}", "{}", "{}", "team-{}", "{}-*", "*{}", "{}{}", "d*{}", "{}.b_c"]
CLUSTER_ONLY = ["Documents:Read", "Audit:Read"]
NAMES = ["dev", "dev-2", "team-a", "fn", "FN", "d", "v", "a.b_c", "acme", "1", "team-1"]
WRITTEN_ACTIONS = [
    *("*", "Function:*", "Secret:*", "Namespace:*", "System:*", "Function:Read", "Function:Admin"),
    *("Secret:Read", "Secret:Admin", "Function:Get", "Function:List", "Function:Invoke"),
    *("Secret:List", "Namespace:List", "System:Info", *CLUSTER_ONLY),
]


def resource(rng: Random) -> str:
    """A resource as a statement writes it."""
    return "*" if rng.random() < 0.15 else f"{_half(rng)}:{_half(rng)}"


def _half(rng: Random) -> str:
    if rng.random() < 0.88:
        return rng.choice(_HALVES)
    form = rng.choice(_WITH_VARIABLES)
    return form.format(*(rng.choice(_VARIABLES) for _ in range(form.count("{}"))))


def asked(rng: Random, action: str = "") -> str:
    """A resource as a request for *action* asks for it."""
    if rng.random() < 0.1 or action in CLUSTER_ONLY:
        return "*"
    return f"{rng.choice(NAMES)}:{rng.choice([*NAMES, '*'])}"


def statements(
    rng: Random, near: Plain, roles: Sequence[str] = (), conditional: float = 0.4
) -> list[Plain]:
    """
    The statements of a Policy. The share *conditional* of them has conditions.

    Some others have conditions on the names of *roles*.
    """
    made: list[Plain] = []
    for number in range(rng.randint(1, 3)):
        statement: Plain = {
            "sid": f"s{number}",
            "effect": rng.choice(["Allow", "Allow", "Deny"]),
            "action": rng.choices(WRITTEN_ACTIONS, k=rng.randint(1, 2)),
            "resource": [resource(rng) for _ in range(rng.randint(1, 2))],
        }
        if set(CLUSTER_ONLY) & set(statement["action"]):
            statement["resource"] = ["*"]  # on anything else it would be an error
        if rng.random() < conditional:
            statement["condition"] = block(rng, near, most=1)
        elif roles and rng.random() < 0.1:
            statement["condition"] = _on_roles(rng, roles)
        made.append(statement)
    return made


def _on_roles(rng: Random, roles: Sequence[str]) -> Plain:
    """A condition on the Roles of the access token."""
    name = rng.choice(roles)
    return rng.choice(
        [
            {"ForAnyValue:StringEqual": {"jwt:role": [name]}},
            {"StringEqual": {"jwt:/role/0": [name]}},
            {"StringNotEqual": {"jwt:/role/1": [name]}},
        ]
    )


def documents(rng: Random) -> list[Plain]:
    """A Policy and a Role, as a file has them."""
    near = claims(rng)
    specs = {"Policy": {"statement": statements(rng, near)}, "Role": role(rng, near)}
    return [
        {
            "apiVersion": rng.choice(["iam.openfaas.com/v1", "openfaas.com/v1"]),
            "kind": kind,
            "metadata": {"name": "p"},
            "spec": spec,
        }
        for kind, spec in specs.items()
    ]
