"""
The trust rules over a whole set of documents: what is refused and what is only doubted.

An error (`T…`) keeps the set from being adopted, a warning (`W…`) does not. Every problem names
the value, what it lets in, and the condition to write instead; each code has a section in
`docs/lint.md`. The rules are pure and look at each Role once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType

from federation.documents.model import JwtIssuer, Policy, Role, field_text
from federation.documents.rules import trust
from federation.documents.rules import unreachable as dead
from federation.documents.rules import warnings as doubts
from federation.documents.rules.role_facts import Reading, severity
from federation.errors import Problem
from federation.text import quoted

__all__ = ["CODES", "lint"]

CODES: Mapping[str, str] = MappingProxyType(
    {
        "T001": "no configured issuer is named exactly",
        "T002": "nothing pins who owns the code",
        "T003": "a wildcard reaches into the owner",
        "T004": "identity rests on values that anybody can set",
        "W101": "names without immutable ids",
        "W102": "no restriction on ref or environment",
        "W103": "an environment without a ref",
        "W104": "a trailing wildcard after no separator",
        "W105": "a short ref without its type",
        "W106": "a shared audience",
        "W107": "only one of the two forms of sub",
        "W108": "a Role or value that can never match",
        "W109": "a Policy that no Role uses",
        "W110": "a statement that a Deny makes void",
        "W112": "a wildcard that runs over separators",
        "W113": "an event named in vain",
    }
)
"""Every code that `lint` gives, with its title."""


def lint(
    issuers: Mapping[str, JwtIssuer], roles: Sequence[Role], policies: Mapping[str, Policy]
) -> list[Problem]:
    """Every problem of trust among the documents, in their order; *issuers* are by `iss`."""
    found = chain(
        chain.from_iterable(_of_role(role, issuers) for role in roles),
        chain.from_iterable(map(_shared_audiences, issuers.values())),
        dead.unused_policies(roles, policies),
        dead.void_statements(roles, policies),
    )
    return sorted(found)


def _of_role(role: Role, issuers: Mapping[str, JwtIssuer]) -> Iterator[Problem]:
    reading = Reading.of(role, issuers)
    yield from trust.without_issuer(reading, issuers)
    yield from dead.never_matches(reading, issuers)
    for rule in _RULES:
        yield from rule(reading)


_RULES = (
    trust.unpinned,
    trust.misplaced_wildcards,
    trust.rests_on_free_values,
    doubts.names_without_ids,
    doubts.unrestricted_refs,
    doubts.environment_without_ref,
    doubts.open_endings,
    doubts.short_refs,
    doubts.one_form_of_sub,
    doubts.inner_wildcards,
    doubts.events_named_in_vain,
)

# What other services ask for, or what is sent where nothing was asked.
_SHARED_AUDIENCES = frozenset(
    {
        "account",  # Keycloak's own, in every access token of a realm
        "api://AzureADTokenExchange",
        "crates.io",
        "https://crates.io",
        "https://gitlab.com",
        "https://pypi.org",
        "https://rubygems.org",
        "npm:registry.npmjs.org",
        "octo-sts.dev",
        "pypi",
        "rubygems.org",
        "sigstore",
        "sts.amazonaws.com",
        "sts.amazonaws.com.cn",
        "testpypi",
        "vault",
    }
)
_GITHUB_DEFAULT = re.compile(r"https://github\.com/[^/]+")
_ENTERPRISE_SERVER = re.compile(r"(https?://[^/]+)/_services/token")


def _shared_audiences(issuer: JwtIssuer) -> Iterator[Problem]:
    """W106: tokens with this audience are made for others, who could present them here."""
    for number, audience in enumerate(issuer.audiences):
        if not _is_shared(issuer, audience.rstrip("/")):
            continue
        place = ("spec", "aud", number)
        yield Problem(
            path=issuer.origin.path,
            line=issuer.origin.line_of(*place),
            code="W106",
            severity=severity("W106"),
            message=f"tokens for {quoted(audience)} are also sent to other services, and each of "
            "them could present one here",
            kind="JwtIssuer",
            name=issuer.name,
            field=field_text(place),
            hint="write the broker's own URL, and let jobs ask for it",
        )


def _is_shared(issuer: JwtIssuer, audience: str) -> bool:
    if audience in _SHARED_AUDIENCES or _GITHUB_DEFAULT.fullmatch(audience):
        return True
    server = _ENTERPRISE_SERVER.fullmatch(issuer.iss)
    return bool(server and re.fullmatch(re.escape(server[1]) + "/[^/]+", audience))
