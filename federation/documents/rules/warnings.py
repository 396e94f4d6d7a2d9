"""
Warnings W101 to W107, W112 and W113: Roles that admit more, or less, than they seem to.

Each rule looks for one known mistake and names the safer condition. `docs/lint.md` has the attack
behind each rule.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from federation.documents.model import JwtIssuer
from federation.documents.rules.owners import literal_prefix, only_wildcards
from federation.documents.rules.role_facts import Fault, Place, PlacedCondition, RoleFacts, yaml
from federation.documents.rules.trust import reaches_the_owner
from federation.policy.conditions import keys
from federation.providers.profile import NameWithId
from federation.providers.table import PROFILES, Provider, all_claims
from federation.text import quoted

_SUB = keys("sub")


def names_without_ids(facts: RoleFacts) -> Iterator[Fault]:
    """W101: a name is compared but no id, and whoever takes over the name is admitted."""
    narrowing = [placed for placed in facts.conditions if placed.narrows]
    for provider in sorted(facts.providers):
        for claims in PROFILES[provider].names:
            named = next((placed for placed in narrowing if _is_name(claims, placed)), None)
            if named and not _pins_id(claims, facts):
                where = f"; {claims.where}" if claims.where else ""
                yield Fault(
                    named.place,
                    f"{quoted(named.values[0])} is a name: whoever takes it over after a rename or "
                    "a deletion is admitted",
                    f"add {yaml('StringEqual', **{claims.ids[0]: '<id>'})}{where}",
                )


def _is_name(claims: NameWithId, placed: PlacedCondition) -> bool:
    if placed.key == "jwt:sub" and claims.sub_name:
        return any(map(claims.sub_name.search, placed.values))
    return placed.claim in claims.names


def _pins_id(claims: NameWithId, facts: RoleFacts) -> bool:
    if claims.sub_id and facts.subjects(claims.sub_id):
        return True
    return any(
        not placed.pattern or all(literal_prefix(value) == value for value in placed.values)
        for placed in facts.on(keys(*claims.ids))
    )


_REF_CLAIMS = all_claims(lambda profile: profile.ref_claims)
_REF_KEYS = keys(*_REF_CLAIMS)
_REF_IN_SUB = re.compile(rf":(?:{'|'.join(_REF_CLAIMS)}):[^*?]")
_TYPE_IN_SUB = re.compile(r":ref_type:[^*?]")
_ENVIRONMENT_IN_SUB = re.compile(r":environment:[^*?]")
_REF_IN_WORKFLOW = re.compile(r"@[^*?]")


def unrestricted_refs(facts: RoleFacts) -> Iterator[Fault]:
    """W102: jobs of any branch, tag or pull request of the repository are admitted."""
    # GitHub gives all pull requests of a repository this one `sub`, whatever their branch.
    of_pull_requests = [
        (place, value)
        for placed in facts.on(_SUB)
        for place, value in placed.placed_values
        if value.endswith(":pull_request")
    ]
    for place, value in of_pull_requests:
        yield Fault(
            place,
            f"every author of a pull request in the repository has the subject "
            f"{quoted(value)}, whatever the branch",
            "let no Role that deploys admit it; for previews, give a Role of its own few rights",
        )
    if of_pull_requests or _restricts_ref(facts) or _restricts_environment(facts):
        return
    yield Fault(
        facts.block,
        "no restriction on ref or environment: whoever may push any branch may use this Role",
        _ref_to_add(facts),
    )


def environment_without_ref(facts: RoleFacts) -> Iterator[Fault]:
    """W103: an environment without protection rules can be named from any branch."""
    if not _restricts_environment(facts) or _restricts_ref(facts):
        return
    if "jwt:ref_type" in facts.narrowed or facts.subjects(_TYPE_IN_SUB):
        return
    naming = next(facts.on({"jwt:environment"}), None) or next(facts.on(_SUB))
    yield Fault(
        naming.place,
        "an environment without protection rules can be named by a job on any branch",
        _ref_to_add(facts),
    )


def _restricts_ref(facts: RoleFacts) -> bool:
    return (
        not _REF_KEYS.isdisjoint(facts.narrowed)
        or facts.subjects(_REF_IN_SUB)
        or any(
            all(map(_REF_IN_WORKFLOW.search, placed.values))
            for placed in facts.on({"jwt:workflow_ref"})
        )
    )


def _restricts_environment(facts: RoleFacts) -> bool:
    return "jwt:environment" in facts.narrowed or facts.subjects(_ENVIRONMENT_IN_SUB)


def _ref_to_add(facts: RoleFacts) -> str:
    examples = [PROFILES[provider].ref_example for provider in sorted(facts.providers)]
    return f"add {yaml('StringEqual', **dict(next(filter(None, examples))))}"


_SEPARATORS = frozenset(string.punctuation) - {"*", "?"}


def open_endings(facts: RoleFacts) -> Iterator[Fault]:
    """W104: a trailing wildcard after no separator also matches longer names."""
    for _, place, value in _patterns(facts):
        literal = value.rstrip("*?")
        if value.endswith("*") and literal and literal[-1] not in _SEPARATORS:
            yield Fault(
                place,
                f"{quoted(value)} also matches {quoted(literal + '-evil')}",
                f"write {quoted(literal + '/*')}, or each value under StringEqual",
            )


_NAME_LAST = keys("sub", "ref", "ref_path")
_BRANCH_LAST = keys("workflow_ref", "job_workflow_ref", "ci_config_ref_uri")
_STAR_INSIDE = re.compile(r"\*[*?]*[^*?]")


def inner_wildcards(facts: RoleFacts) -> Iterator[Fault]:
    """W112: a `*` before more text matches separators too, and so parts that a caller chooses."""
    for placed, place, value in _patterns(facts):
        if placed.key not in _NAME_LAST | _BRANCH_LAST or not _STAR_INSIDE.search(value):
            continue
        ending = value.rpartition("*")[2]
        example = f"a name that ends in {quoted(ending)} is enough"
        if placed.key in _BRANCH_LAST:
            example = f"so does a branch called {quoted('x' + ending)}"
        yield Fault(
            place,
            f"in {quoted(value)} the * also runs over / : and @: {example}",
            _instead_of_star(placed.key),
        )


def _instead_of_star(key: str) -> str:
    if key == "jwt:sub":
        return "put the repository and the ref or environment into conditions of their own"
    if key in _NAME_LAST:
        return "write the whole ref, or let the pattern begin with refs/heads/ or refs/tags/"
    return "write the file and the ref out, or put the ref into a condition of its own"


def _patterns(facts: RoleFacts) -> Iterator[tuple[PlacedCondition, Place, str]]:
    """The values of positive patterns that are more than wildcards and that T003 accepts."""
    for placed in facts.patterns:
        for place, value in placed.placed_values:
            condition = placed.condition
            if not only_wildcards(condition, value) and not reaches_the_owner(
                facts, condition, value
            ):
                yield placed, place, value


_WILDCARD_ADMITS = {
    key: demand.wildcard_admits
    for profile in PROFILES.values()
    for demand in profile.demands
    for key in demand.keys
}
"""What a wildcard on a claim that some provider demands to be named would admit."""


def events_named_in_vain(facts: RoleFacts) -> Iterator[Fault]:
    """W113: a claim that should keep outsiders out is named, but with any value."""
    for placed in facts.patterns:
        if placed.key not in _WILDCARD_ADMITS or placed.key in facts.narrowed:
            continue
        place, value = next(each for each in placed.placed_values if not each[1].strip("*?"))
        yield Fault(
            place,
            f"{quoted(value)} names {placed.key} and admits {_WILDCARD_ADMITS[placed.key]}",
            "list the values that are meant under StringEqual, or drop the condition",
        )


def short_refs(facts: RoleFacts) -> Iterator[Fault]:
    """W105: GitLab's `ref` is short, so a branch and a tag of one name look alike."""
    if Provider.GITLAB not in facts.providers or facts.subjects(_TYPE_IN_SUB):
        return
    if not keys("ref_type", "ref_path").isdisjoint(facts.narrowed):
        return
    for placed in facts.on({"jwt:ref"}):
        yield Fault(
            placed.place,
            f"on GitLab a tag called {quoted(placed.values[0])} has the same ref as the branch",
            f"add {yaml('StringEqual', ref_type='branch')}, or compare ref_path instead",
        )


_IDS_IN_SUB = re.compile(r"repo:[^:]*@")


def one_form_of_sub(facts: RoleFacts) -> Iterator[Fault]:
    """W107: a rename changes the form of GitHub's `sub`, and only one form is compared."""
    if not any(
        issuer.provider is Provider.GITHUB and not issuer.iss.endswith("/_services/token")
        for issuer in facts.issuers
    ):
        return
    for placed in facts.on(_SUB):
        with_ids = {
            bool(_IDS_IN_SUB.match(value)) for value in placed.values if value.startswith("repo:")
        }
        if len(with_ids) != 1:
            continue
        other = "repo:OWNER/NAME:…" if with_ids == {True} else "repo:OWNER@ID/NAME@ID:…"
        yield Fault(
            placed.place,
            f"GitHub writes this subject in two forms, and this one does not match {other}",
            f"compare {yaml('StringEqual', repository_id='<id>', ref='refs/heads/main')} "
            "instead, or list both forms",
        )


# Audiences that other services ask for, or that a provider sends if a job asks for none. `account`
# is in every access token of a Keycloak realm.
_SHARED_AUDIENCES = frozenset(
    {
        *("account", "api://AzureADTokenExchange", "https://gitlab.com", "octo-sts.dev"),
        *("crates.io", "https://crates.io", "rubygems.org", "https://rubygems.org"),
        *("pypi", "testpypi", "https://pypi.org", "npm:registry.npmjs.org"),
        *("sigstore", "sts.amazonaws.com", "sts.amazonaws.com.cn", "vault"),
    }
)
_GITHUB_DEFAULT = re.compile(r"https://github\.com/[^/]+")
_ENTERPRISE_SERVER = re.compile(r"(https?://[^/]+)/_services/token")


def shared_audiences(issuer: JwtIssuer) -> Iterator[Fault]:
    """W106: tokens with this audience are sent to other services, which could present them here."""
    for number, audience in enumerate(issuer.audiences):
        if not _is_shared(issuer, audience.rstrip("/")):
            continue
        yield Fault(
            ("spec", "aud", number),
            f"tokens for {quoted(audience)} are also sent to other services, and each of them "
            "could present one here",
            "write the broker's own URL, and let jobs ask for it",
        )


def _is_shared(issuer: JwtIssuer, audience: str) -> bool:
    if audience in _SHARED_AUDIENCES or _GITHUB_DEFAULT.fullmatch(audience):
        return True
    server = _ENTERPRISE_SERVER.fullmatch(issuer.iss)
    return bool(server and re.fullmatch(re.escape(server[1]) + "/[^/]+", audience))
