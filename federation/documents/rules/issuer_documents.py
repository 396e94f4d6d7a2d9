"""
Rules about JwtIssuer documents: a provider that was forgotten, audiences, keys and single use.

A document that leaves `provider` out loses the checks of its CI system in silence, so that is an
error where the issuer or a Role on it shows which system it is.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import PurePath
from typing import NamedTuple
from urllib.parse import urlsplit

from federation.documents.catalog import role_issuers
from federation.documents.codes import Code
from federation.documents.model import JwtIssuer, Role
from federation.documents.rules.role_facts import Fault
from federation.errors import Problem, Severity
from federation.policy.conditions import KEY_PREFIX, Condition
from federation.providers.table import GENERIC, PROFILES, likely_providers
from federation.text import listed, quoted


def forgotten_providers(
    issuers: Mapping[str, JwtIssuer], roles: Iterable[Role]
) -> Iterator[tuple[JwtIssuer, Fault]]:
    """D025: `provider` is left out, and the issuer looks like a CI system's."""
    open_questions = {
        iss: issuer
        for iss, issuer in issuers.items()
        if issuer.provider == GENERIC and not issuer.provider_named
    }
    if not open_questions:
        return
    signs = _signs_on(open_questions.keys(), roles)
    for iss, issuer in open_questions.items():
        if likely := likely_providers(iss):
            yield issuer, _forgotten(f"{quoted(iss)} looks like an issuer of", likely)
        elif found := signs.get(iss):
            votes = Counter(name for sign in found for name in sign.providers)
            most = max(votes.values())
            likely = tuple(name for name, count in votes.items() if count == most)
            yield issuer, _forgotten(f"a Role on it uses {found[0].what} of", likely)


def claims_without_provider(role: Role, issuers: Mapping[str, JwtIssuer]) -> Iterator[Fault]:
    """D025: a Role uses a CI system's claim on an issuer that leaves `provider` out."""
    for iss in sorted(role_issuers(role) & issuers.keys()):
        if issuers[iss].provider != GENERIC or issuers[iss].provider_named:
            continue
        for condition, place in zip(role.conditions, role.places, strict=True):
            if sign := _sign(condition):
                names = " or ".join(PROFILES[name].display_name for name in sign.providers)
                written = " or ".join(f"provider: {name}" for name in sign.providers)
                yield Fault(
                    place,
                    f"it uses {sign.what} of {names}, and the JwtIssuer of {quoted(iss)} leaves "
                    "provider out: without it the checks for that system's tokens are off",
                    f"let its author write {written}, or provider: {GENERIC} if it is none of these",
                )
                break


class _Sign(NamedTuple):
    """A sign of a CI system in a condition, and the providers that it may be."""

    what: str
    providers: tuple[str, ...]


def _sign(condition: Condition) -> _Sign | None:
    """Return what in *condition* tells a CI system, None if nothing does."""
    claim = condition.key.removeprefix(KEY_PREFIX)
    if likely := _TELLING.get(claim):
        return _Sign(f"{claim}, a claim", likely)
    for value in condition.values if claim == "sub" else ():
        likely = tuple(name for name, form in _TELLING_SUBS.items() if form.match(value))
        if likely:
            return _Sign(f"{quoted(value)}, a subject", likely)
    return None


def _signs_on(issuers: Set[str], roles: Iterable[Role]) -> Mapping[str, Sequence[_Sign]]:
    """For each of *issuers*, what in its Roles' conditions tells a provider."""
    found: dict[str, list[_Sign]] = defaultdict(list)
    for role in roles:
        of_role = role_issuers(role) & issuers
        signs = [sign for sign in map(_sign, role.conditions) if sign] if of_role else ()
        for iss in of_role:
            found[iss] += signs
    return found


def _telling() -> Mapping[str, tuple[str, ...]]:
    by_claim: dict[str, list[str]] = defaultdict(list)
    for name, profile in PROFILES.items():
        for claim in profile.telling:
            by_claim[claim].append(name)
    return {claim: tuple(names) for claim, names in by_claim.items()}


_TELLING = _telling()
"""For each claim that tells a provider, the providers that it may be."""
_TELLING_SUBS = {
    name: profile.telling_sub for name, profile in PROFILES.items() if profile.telling_sub
}
"""The beginnings of a `sub` that tell a provider."""


def _forgotten(shown_by: str, likely: tuple[str, ...]) -> Fault:
    names = " or ".join(PROFILES[name].display_name for name in likely)
    written = " or ".join(f"provider: {name}" for name in likely)
    return Fault(
        ("spec", "iss"),
        f"provider is left out, and {shown_by} {names}: without it the checks for that system's "
        "tokens are off",
        f"write {written}; if it is none of these, write provider: {GENERIC}",
    )


# Audiences that other services ask for. `account` is in every access token of a Keycloak realm.
_SHARED_AUDIENCES = frozenset(
    {
        *("account", "api://AzureADTokenExchange", "https://gitlab.com", "octo-sts.dev"),
        *("crates.io", "https://crates.io", "rubygems.org", "https://rubygems.org"),
        *("pypi", "testpypi", "https://pypi.org", "npm:registry.npmjs.org"),
        *("sigstore", "sts.amazonaws.com", "sts.amazonaws.com.cn", "vault"),
    }
)
_OWN_SERVER = re.compile(r"(https?://[^/]+)/(?:_services/token|api/actions)")


def shared_audiences(issuer: JwtIssuer) -> Iterator[Fault]:
    """W106: tokens with this audience are sent to other services, which could present them here."""
    for number, audience in enumerate(issuer.audiences):
        if _is_shared(issuer, audience.rstrip("/")):
            yield Fault(
                ("spec", "aud", number),
                f"tokens for {quoted(audience)} are also sent to other services, and each of them "
                "could present one here",
                "write the broker's own URL, and let jobs ask for it",
            )


def _is_shared(issuer: JwtIssuer, audience: str) -> bool:
    profile = issuer.profile
    if profile.default_audiences and profile.default_audiences.fullmatch(audience):
        # Where no job can ask for another audience, there is nothing better to write.
        return not profile.audience_fixed
    if audience in _SHARED_AUDIENCES or re.fullmatch(r"https://github\.com/[^/]+", audience):
        return True
    server = _OWN_SERVER.fullmatch(issuer.iss)
    return bool(server and re.fullmatch(re.escape(server[1]) + "/[^/]+", audience))


def nobodys_issuers(issuer: JwtIssuer) -> Iterator[Fault]:
    """W118: no token fits this document."""
    for profile in PROFILES.values():
        if why := profile.no_issuers.get(issuer.iss.rstrip("/")):
            yield Fault(("spec", "iss"), f"{quoted(issuer.iss)} signs no tokens: {why}", "mend iss")
    for number, audience in enumerate(issuer.audiences):
        if audience.count("://") > 1 and (hint := listed(audience)):
            never = "is one value with commas within, and no token is for it"
            yield Fault(("spec", "aud", number), f"{quoted(audience)} {never}", hint)
            continue
        parts = urlsplit(audience)
        if parts.scheme in {"http", "https"} and parts.path == "/":
            yield Fault(
                ("spec", "aud", number),
                f"{quoted(audience)} ends in a slash, and clients ask for the URL without it",
                f"write {quoted(audience.rstrip('/'))}",
            )


def token_file_outside(issuer: JwtIssuer, folder: PurePath | None) -> Iterator[Problem]:
    """
    D027: an object of Kubernetes names a bearerTokenFile that is not in *folder*.

    Who may write a JwtIssuer must not make the broker send its other files to an address of theirs.
    Links are not followed here: `issuers.fetch` does that at each fetch.
    """
    file = issuer.bearer_token_file
    if file is None or (folder is not None and _below(PurePath(file), folder)):
        return
    where = f"in {folder}, the folder of" if folder else "sent without"
    yield Problem(
        path=issuer.origin.path,
        line=issuer.origin.line_of("spec", "bearerTokenFile"),
        code=Code.TOKEN_FILE_OUTSIDE.value,
        severity=Severity.ERROR,
        message=f"{quoted(file)} is not {where} the broker's setting bearer-token-files",
        kind="JwtIssuer",
        name=issuer.name,
        field="spec.bearerTokenFile",
        hint="name a token in that folder, or keep this JwtIssuer in a file of the broker's",
    )


def _below(file: PurePath, folder: PurePath) -> bool:
    # `..` after a link leads elsewhere than the text says.
    return ".." not in file.parts and file != folder and file.is_relative_to(folder)


def foreign_keys(issuer: JwtIssuer) -> Iterator[Fault]:
    """W119: whoever serves these keys can sign as anybody at a shared issuer."""
    if not issuer.shared:
        return
    home = urlsplit(issuer.iss).hostname
    for name, url in (("jwksUri", issuer.jwks_uri), ("issInternal", issuer.internal_url)):
        known = url == issuer.profile.keys_elsewhere.get(issuer.iss)
        if url is not None and urlsplit(url).hostname != home and not known:
            yield Fault(
                ("spec", name),
                f"the keys of {quoted(issuer.iss)} would come from {quoted(url)}, and whoever "
                "serves that can sign a token of any job",
                f"drop {name}: the issuer serves its own keys",
            )


def taken_many_times(issuer: JwtIssuer) -> Iterator[Fault]:
    """W120: a job's token that somebody else saw can be exchanged again."""
    if issuer.shared and issuer.profile.single_use and not issuer.single_use:
        yield Fault(
            ("spec", "subjectTokenUse"),
            "a token that appears in a log or an artifact can be exchanged again until it expires",
            "drop subjectTokenUse: a job can ask for a new token each time",
        )
