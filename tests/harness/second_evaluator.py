"""
A second, slow evaluator of conditions, Roles and decisions, which tests compare with the real one.

It was written from the rules alone. It reads documents as plain mappings and shares no code with
`federation`, so a mistake in one of the two shows as a difference. It compiles, caches and
indexes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Json = Any
Document = Mapping[str, Any]

NEGATIVE = {"StringNotEqual", "StringNotEquals", "StringNotLike"}
WRITERS = [
    "push",
    "schedule",
    "workflow_dispatch",
    "repository_dispatch",
    "release",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "merge_group",
    "pull_request",
    "registry_package",
    "page_build",
]
"""The events that only people who may write to the repository can cause."""
OUTSIDERS = [
    "pull_request_target",
    "workflow_run",
    "issue_comment",
    "issues",
    "discussion",
    "discussion_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "watch",
    "fork",
]
VERBS = {
    "Function": ["List", "Get", "Create", "Update", "Delete", "Logs", "Scale", "Invoke"],
    "Secret": ["List", "Create", "Update", "Delete"],
    "Namespace": ["List", "Get", "Create", "Update", "Delete"],
    "System": ["Info"],
}
CLUSTER_ONLY = ["Documents:Read", "Audit:Read"]
ACTIONS = [f"{group}:{verb}" for group, verbs in VERBS.items() for verb in verbs] + CLUSTER_ONLY
LEGACY = {
    "Function:Read": ["Function:List", "Function:Get", "Function:Logs"],
    "Function:Admin": ["Function:Create", "Function:Update", "Function:Delete", "Function:Scale"],
    "Secret:Read": ["Secret:List"],
    "Secret:Admin": ["Secret:Create", "Secret:Update", "Secret:Delete"],
}


# Conditions


def as_text(value: Json) -> str | None:
    """A string, integer or boolean claim as text. Any other claim has no text."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if type(value) is int:
        return f"{value:d}"
    if type(value) is str and len(value) > 0:
        return value
    return None


def as_list(written: Json) -> list[str]:
    """The values of a key. A scalar is a list of one."""
    if not isinstance(written, list):
        written = [written]
    return [value if isinstance(value, str) else str(as_text(value)) for value in written]


def like(pattern: str, value: str) -> bool:
    """Match the whole value: `*` is any run of characters, `?` is exactly one."""
    known: dict[tuple[int, int], bool] = {}

    def match(p: int, v: int) -> bool:
        if (p, v) not in known:
            known[p, v] = step(p, v)
        return known[p, v]

    def step(p: int, v: int) -> bool:
        if p == len(pattern):
            return v == len(value)
        if pattern[p] == "*":
            return match(p + 1, v) or (v < len(value) and match(p, v + 1))
        return v < len(value) and pattern[p] in {"?", value[v]} and match(p + 1, v + 1)

    return match(0, 0)


def equal_but_for_case(one: str, other: str) -> bool:
    """True if equal, where only A to Z and a to z count as the same."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = {(a, a.upper()) for a in letters} | {(a.upper(), a) for a in letters}
    return len(one) == len(other) and all(
        a == b or (a, b) in pairs for a, b in zip(one, other, strict=True)
    )


def find(claims: Document, key: str) -> Json:
    """The claim that a key names, None if there is none."""
    assert key.startswith("jwt:")
    name = key[4:]
    if name[:1] != "/":
        return claims.get(name)
    here: Json = claims
    for written in name.split("/")[1:]:
        step = written.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif isinstance(here, list) and step in [str(number) for number in range(len(here))]:
            here = here[int(step)]
        else:
            return None
    return here


def one_condition_holds(operator: str, wanted: list[str], claim: Json) -> bool:
    """True if one claim satisfies one operator with its values."""
    if operator.startswith("ForAnyValue:"):
        if not isinstance(claim, list):
            return False
        got = [item for item in claim if isinstance(item, str) and item != ""]
        operator = operator.removeprefix("ForAnyValue:")
        return any(matches_one(operator, wanted, item) for item in got)
    text = as_text(claim)
    if text is None:
        return False
    if operator in NEGATIVE:
        return not matches_one(operator.replace("Not", ""), wanted, text)
    return matches_one(operator, wanted, text)


def matches_one(operator: str, wanted: list[str], got: str) -> bool:
    """True if a positive operator matches a text with one of the values."""
    if operator in {"StringEqual", "StringEquals", "principal"}:
        return any(got == want for want in wanted)
    if operator in {"StringEqualIgnoreCase", "StringEqualsIgnoreCase"}:
        return any(equal_but_for_case(got, want) for want in wanted)
    assert operator == "StringLike", operator
    return any(like(want, got) for want in wanted)


def block_holds(block: Document, claims: Document) -> bool:
    """True if the block holds: operators are ANDed, keys are ANDed, values are ORed."""
    for operator, keys in block.items():
        for key, written in keys.items():
            if not one_condition_holds(operator, as_list(written), find(claims, key)):
                return False
    return True


def can_be_compared(operator: str, claim: Json) -> bool:
    """True if the claim is there, in the shape that the operator compares."""
    if not operator.startswith("ForAnyValue:"):
        return as_text(claim) is not None
    return isinstance(claim, list) and [i for i in claim if isinstance(i, str) and i] != []


def deny_block_holds(block: Document, claims: Document) -> bool:
    """The same for a Deny: a condition whose claim cannot be compared counts as holding."""
    for operator, keys in block.items():
        for key, written in keys.items():
            claim = find(claims, key)
            if can_be_compared(operator, claim) and not one_condition_holds(
                operator, as_list(written), claim
            ):
                return False
    return True


# Roles


def role_holds(spec: Document, claims: Document) -> bool:
    """True if principal and condition hold. A Role with neither admits no token."""
    principal = {"principal": spec.get("principal", {})}
    condition = spec.get("condition", {})
    if not principal["principal"] and not condition:
        return False
    return block_holds(principal, claims) and block_holds(condition, claims)


def role_names(spec: Document, beginning: str, whole: bool = True) -> bool:
    """True if a positive operator, or the principal, has a key with this name or beginning."""
    keys = [plain(key) for key in spec.get("principal", {})]
    for operator, written in spec.get("condition", {}).items():
        if operator not in NEGATIVE:
            keys.extend(map(plain, written))
    return any(key == beginning if whole else key.startswith(beginning) for key in keys)


def plain(key: str) -> str:
    """A key that points to a whole claim, as the name of that claim."""
    if key.startswith("jwt:/") and key.count("/") == 1 and len(key) > 5:
        name = key[5:].replace("~1", "/").replace("~0", "~")
        return key if name.startswith("/") else "jwt:" + name
    return key


def role_admits(spec: Document, provider: str, claims: Document) -> bool:
    """True if a Role admits a token of an issuer of this provider."""
    if not role_holds(spec, claims):
        return False
    if provider == "github" and claims.get("event_name") not in WRITERS:
        return role_names(spec, "jwt:event_name")
    if provider == "gitlab":
        of_requests = ["merge_request_event", "external_pull_request_event"]
        if claims.get("pipeline_source") in of_requests and not role_names(
            spec, "jwt:pipeline_source"
        ):
            return False
        runs_in = as_text(claims.get("job_project_id"))
        if runs_in is not None and runs_in != as_text(claims.get("project_id")):
            return role_names(spec, "jwt:job_project_", whole=False)
    return all(role_names(spec, key) for key in must_name(provider, claims))


def must_name(provider: str, claims: Document) -> list[str]:
    """The keys that a Role must name for this token, at the providers other than the first two."""
    return [
        "jwt:" + claim
        for of, claim, harmless in HARMLESS
        if of == provider and claims.get(claim) not in harmless
    ] + (
        ["jwt:rpo_ref"]
        if provider == "azure-devops" and str(claims.get("rpo_ref")).startswith("refs/pull/")
        else []
    )


HARMLESS: list[tuple[str, str, list[Json]]] = [
    ("forgejo", "event_name", [event for event in WRITERS if event != "pull_request"]),
    ("circleci", "oidc.circleci.com/ssh-rerun", [None, False]),
    ("terraform", "terraform_run_phase", ["apply"]),
    ("spacelift", "runType", ["TRACKED", "DESTROY"]),
    ("semaphore", "ref_type", ["branch", "tag"]),
    ("semaphore", "job_type", ["pipeline_job"]),
    ("codefresh", "scm_pull_request_target_branch", [None, ""]),
    ("codefresh", "initiator", [None, ""]),
]
"""For each provider, a claim and the values with which no Role has to name it."""


def admitting(
    roles: Mapping[str, Document], providers: Mapping[str, str], claims: Document
) -> list[str]:
    """The names of the Roles that admit the token."""
    provider = providers[claims["iss"]]
    return sorted(name for name, spec in roles.items() if role_admits(spec, provider, claims))


# Narrowing


Policies = Mapping[str, Sequence[Document]]


class Held(NamedTuple):
    """The names of the Policies that a token holds, and those of them that may give."""

    names: list[str]
    giving: list[str]
    some_roles_left_out: bool = False


def given_by(roles: Mapping[str, Document], names: Sequence[str]) -> list[str]:
    """The Policies of the Roles with these names. A Role that is missing gives none."""
    return [policy for name in names if name in roles for policy in roles[name]["policy"]]


def has_deny(policies: Policies, name: str) -> bool:
    """True if the Policy has a Deny. One that is missing could have had one."""
    if name not in policies:
        return True
    return len([s for s in policies[name] if s["effect"] == "Deny"]) > 0


def held_after_exchange(
    roles: Mapping[str, Document],
    policies: Policies,
    admitting: Sequence[str],
    asked: Sequence[str],
) -> Held:
    """Return what the access token holds if the Roles *admitting* admit and only *asked* may give."""
    everything = given_by(roles, admitting)
    held = Held(everything, everything)
    return held if set(asked) == set(admitting) else narrowed(roles, policies, held, asked)


def narrowed(
    roles: Mapping[str, Document], policies: Policies, held: Held, asked: Sequence[str]
) -> Held:
    """What is left of *held* if only the Roles *asked* may give. If none is asked, all do."""
    if not asked:
        return held
    giving = [name for name in held.giving if name in given_by(roles, asked)]
    kept = [name for name in held.names if name in giving or has_deny(policies, name)]
    return Held(kept, giving, some_roles_left_out=True)


def lifetime(
    roles: Mapping[str, Document],
    policies: Policies,
    admitting: Sequence[str],
    asked: Sequence[str],
    longest: int,
) -> int:
    """The minutes that the access token lives, if those of its issuer live *longest*."""
    caps = [longest]
    for name in admitting:
        denies = [policy for policy in roles[name]["policy"] if has_deny(policies, policy)]
        if "minutes" in roles[name] and (not asked or name in asked or denies):
            caps.append(roles[name]["minutes"])
    return min(caps)


# Decisions


def stands_for(action: str) -> list[str]:
    """The single actions that a written action means."""
    if action == "*":
        return ACTIONS
    if action.endswith(":*"):
        return [each for each in ACTIONS if each.split(":")[0] == action[:-2]]
    return LEGACY.get(action, [action])


def in_halves(resource: str) -> list[str]:
    """The namespace and the name of a resource. A colon within `${...}` parts nothing."""
    halves, inside = [""], False
    for letter in "*:*" if resource == "*" else resource:
        inside = letter == "{" or (inside and letter != "}")
        if letter == ":" and not inside:
            halves.append("")
        else:
            halves[-1] += letter
    assert len(halves) == 2, resource
    return halves


def fits_in_a_name(value: str) -> bool:
    """True for lower-case letters, digits and inner dashes, at most 63."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    return (
        0 < len(value) <= 63
        and all(letter in letters or letter == "-" for letter in value)
        and value[0] != "-"
        and value[-1] != "-"
    )


def with_values(half: str, claims: Document) -> str | None:
    """A half with the token's values for its variables, None if one of them fits in no name."""
    while "${" in half:
        before, _, rest = half.partition("${")
        key, _, after = rest.partition("}")
        value = as_text(find(claims, key))
        if value is None or not fits_in_a_name(value):
            return None
        half = before + value + after
    return half


def counting(resource: str, effect: str, claims: Document) -> str | None:
    """The resource as it counts for a token, None if it matches nothing."""
    halves = [with_values(half, claims) for half in in_halves(resource)]
    if effect == "Deny":
        return ":".join("*" if half is None else half for half in halves)
    return None if None in halves else ":".join(map(str, halves))


def reaches(resource: str, asked: str) -> bool:
    """True if a resource of a statement covers the asked one: `*`, `ns:*` or `ns:name`."""
    namespace, name = in_halves(resource)
    asked_namespace, asked_name = ("*", "*") if asked == "*" else asked.split(":")
    return half_reaches(namespace, asked_namespace) and half_reaches(name, asked_name)


def reaches_for(action: str, resource: str, asked: str) -> bool:
    """As `reaches`; a function is called by a DNS name, which has no case."""
    if action == "Function:Invoke":
        return reaches(resource.lower(), asked.lower())
    return reaches(resource, asked)


def half_reaches(pattern: str, asked: str) -> bool:
    """True if one half covers the asked one. All names are covered only by stars alone."""
    return set(pattern) == {"*"} if asked == "*" else like(pattern, asked)


Decided = tuple[bool, str | None, str | None, str | None]


def first_match(
    statements: Sequence[Document], effect: str, action: str, asked: str, claims: Document
) -> str | None:
    """The sid of the first statement with this effect that matches."""
    holds = deny_block_holds if effect == "Deny" else block_holds
    for statement in statements:
        if (
            statement["effect"] == effect
            and any(action in stands_for(written) for written in statement["action"])
            and any(
                reaches_for(action, resource, asked)
                for written in statement["resource"]
                if (resource := counting(written, effect, claims)) is not None
            )
            and holds(statement.get("condition", {}), claims)
        ):
            return str(statement["sid"])
    return None


def decide(
    policies: Policies, action: str, asked: str, claims: Document, held: Held | None = None
) -> Decided:
    """
    Decide: allowed or not, and the policy, sid and effect of the deciding statement.

    *policies* are those in force. The token holds all of them and no others, if not said
    otherwise. A token that names a Policy which is not in force is allowed nothing.
    """
    names, giving, some_roles_left_out = held or Held(list(policies), list(policies))
    if any(name not in policies for name in names):
        return False, None, None, None
    if some_roles_left_out:
        # These claims depend on the Roles that the job asked for, so they count as absent.
        claims = {k: claims[k] for k in claims if k not in ("role", "policy", "fed:deny_only")}
    settled = matching(policies, names, giving, action, asked, claims)
    if settled[0] or (action, asked) != ("Namespace:List", "*"):
        return settled
    for name in filter(giving.__contains__, names):  # the list is given where a part of it is
        for statement in policies[name]:
            if statement["effect"] == "Allow" and any(
                action in stands_for(written) for written in statement["action"]
            ):
                for written in statement["resource"]:
                    part = counting(written, "Allow", claims)
                    of_part = part and matching(policies, names, giving, action, part, claims)
                    if of_part and of_part[0]:
                        return of_part
    return settled


def matching(
    policies: Policies,
    names: Sequence[str],
    giving: Sequence[str],
    action: str,
    asked: str,
    claims: Document,
) -> Decided:
    """The answer by the first Deny that matches, or else the first Allow."""
    for effect in ("Deny", "Allow"):
        for name in names:
            found = first_match(policies[name], effect, action, asked, claims)
            if found is not None and (effect == "Deny" or name in giving):
                return effect == "Allow", name, found, effect
    return False, None, None, None
