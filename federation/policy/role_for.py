"""
The tightest sensible Role for one token: whose it is by ids, from which ref, in which environment.

What is sensible comes from the provider table and from nothing else. Ids are used where the provider
has them, so that a rename admits nobody new. A claim that changes with each run, such as a commit,
is never used. A situation that outsiders can cause is named, or the Role would not admit the token,
and a note warns of it. The claims need not be signed, so a person must read the Role before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from federation.claims import Claims, UnverifiedClaims, at, text
from federation.documents.field_types import VALUE_CHARS
from federation.documents.model import JwtIssuer
from federation.policy.conditions import KEY_PREFIX, Condition, Operator
from federation.providers.profile import BOOLEAN
from federation.providers.table import (
    GENERIC,
    PROFILES,
    Profile,
    known_provider,
    likely_providers,
)
from federation.text import quoted

_NAME_CHARS = 63
_QUOTED_CHARS = 1024 * 1024
_GROUPS_SHOWN = 10
_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")
_OF_A_PULL_REQUEST = re.compile(r"refs/(?:pull|merge-requests)/")


@dataclass(frozen=True, slots=True)
class DraftRole:
    """A Role that admits a token, as a document, with what its reader must know."""

    name: str
    policy: str
    principal: Mapping[str, str]
    """By condition key: the value that the claim must have."""
    exact: Mapping[str, str]
    """The same, under `StringEqual`."""
    notes: tuple[str, ...]
    shadow: bool = False
    """True if the Role is only to be recorded, and to admit nobody yet."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of the Role."""
        return (
            *(Condition(Operator.PRINCIPAL, k, (v,)) for k, v in self.principal.items()),
            *(Condition(Operator.STRING_EQUAL, k, (v,)) for k, v in self.exact.items()),
        )

    @property
    def yaml(self) -> str:
        """The document."""
        lines = [
            "apiVersion: iam.openfaas.com/v1",
            "kind: Role",
            "metadata:",
            f"  name: {_scalar(self.name)}",
            "spec:",
            *(["  effect: Shadow"] if self.shadow else []),
            f"  policy: [{_scalar(self.policy)}]",
        ]
        if self.principal:
            lines += ["  principal:", *_entries(self.principal, 4)]
        lines += ["  condition:", "    StringEqual:", *_entries(self.exact, 6)]
        return "\n".join(lines) + "\n"


def role_for(
    unverified: UnverifiedClaims, issuer: JwtIssuer | None = None, *, policy: str = "deploy"
) -> tuple[DraftRole | None, tuple[str, ...]]:
    """
    Return a Role that admits exactly a token with these claims, and notes for its reader.

    *issuer* is the JwtIssuer of the token, where the documents have one; else the provider is told
    by the claims. The Role gives *policy*. None means that no Role can admit the token; the notes
    say why.
    """
    claims = Claims(unverified)
    iss, subject = claims.get("iss"), claims.get("sub")
    if not (isinstance(iss, str) and isinstance(subject, str) and iss and subject):
        return None, ("A token needs the claims iss and sub, both texts.",)
    profiles = _profiles(iss, claims, issuer)
    draft = _Draft(claims, profiles[0])
    if issuer is None and known_provider(iss) is None and draft.profile.name != GENERIC:
        named = " or ".join(f"provider: {profile.name}" for profile in profiles)
        draft.notes.append(f"The JwtIssuer must say {named}.")
    person = not draft.profile.ci or (issuer is not None and issuer.clients_of(claims))
    role, notes = _for_person(draft, iss, policy) if person else _for_job(draft, iss, policy)
    long = [c.key for c in role.conditions if len(c.values[0]) > VALUE_CHARS] if role else []
    if long:
        return None, (f"Too long for a document: {', '.join(long)}.",)
    return role, notes


@dataclass(slots=True)
class _Draft:
    claims: Claims
    profile: Profile
    exact: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def pin(self, *names: str) -> bool:
        """Add each of the claims *names* that the token has. Return whether it has any."""
        found = False
        for name in names:
            value = text(at(self.claims, name))
            if value is not None:
                self.exact[KEY_PREFIX + name] = value
                found = True
        return found

    def has(self, name: str) -> bool:
        """Return whether the token has a text in the claim *name*."""
        return text(at(self.claims, name)) is not None


def _profiles(iss: str, claims: Claims, issuer: JwtIssuer | None) -> tuple[Profile, ...]:
    """Return the providers that the token can be of, at least one; the first is drafted for."""
    if issuer is not None:
        return (issuer.profile,)
    if known := known_provider(iss):
        return (PROFILES[known],)
    likely = [name for name in likely_providers(iss) if _could_be(PROFILES[name], claims)]
    telling = [name for name, profile in PROFILES.items() if _tells(profile, claims)]
    return tuple(PROFILES[name] for name in likely or telling or [GENERIC])


def _could_be(profile: Profile, claims: Claims) -> bool:
    """Return whether *claims* have what every token of a job of *profile* has."""
    return profile.ci and all(text(at(claims, name)) is not None for name in profile.required)


def _tells(profile: Profile, claims: Claims) -> bool:
    told = (text(at(claims, name)) is not None for name in profile.telling)
    return _could_be(profile, claims) and any(told)


def _for_person(draft: _Draft, iss: str, policy: str) -> tuple[DraftRole | None, tuple[str, ...]]:
    profile, claims = draft.profile, draft.claims
    claim = profile.owner.pin[0]
    if profile.ci or text(at(claims, claim)) is None:
        claim = "sub"
    value = text(at(claims, claim)) or ""
    draft.notes += _about_groups(profile, claims)
    name = _named("person", (text(claims.get("preferred_username")) or value,))
    key = KEY_PREFIX + claim
    role = DraftRole(name, policy, {key: value}, {"jwt:iss": iss}, tuple(draft.notes))
    return role, role.notes


def _about_groups(profile: Profile, claims: Claims) -> Iterator[str]:
    """Yield a note on the groups of a person, by which a Role could admit several people."""
    everybody = profile.owner.everybody
    for claim in profile.owner.groups:
        listed = at(claims, claim)
        if not isinstance(listed, list):
            continue
        groups = [
            group
            for group in listed
            if isinstance(group, str) and group and not (everybody and everybody.fullmatch(group))
        ]
        if groups:
            shown = ", ".join(quoted(group) for group in groups[:_GROUPS_SHOWN])
            yield (
                "To admit everybody of a group instead, leave principal out and add"
                f' ForAnyValue:StringEqual: {{"{KEY_PREFIX}{claim}": [{shown}]}} with the groups'
                " that you mean."
            )


def _for_job(draft: _Draft, iss: str, policy: str) -> tuple[DraftRole | None, tuple[str, ...]]:
    profile = draft.profile
    missing = [name for name in profile.required if not draft.has(name)]
    if missing:
        lacking = (
            f"This is no job's token of {profile.display_name}: it lacks {', '.join(missing)}. No"
            " Role admits it, unless it is a person's and its audience is one of the JwtIssuer's"
            " clients."
        )
        return None, (lacking,)
    draft.exact["jwt:iss"] = iss
    _pin_owner(draft)
    _pin_ref(draft)
    if profile.fork_told_by:
        draft.pin(profile.fork_told_by)
    draft.pin(*profile.environment_claims)
    _pin_situations(draft)
    role = DraftRole(_job_name(draft), policy, {}, draft.exact, tuple(draft.notes))
    return role, role.notes


def _pin_owner(draft: _Draft) -> None:
    """Pin the owner and the repository, project or pipeline, by ids where the token has them."""
    profile, owner = draft.profile, draft.profile.owner
    by_id = draft.pin(*owner.ids)
    code_by_id = draft.pin(*owner.code_ids)
    if not by_id:
        draft.pin(*owner.names)
    if not code_by_id:
        # Claims that prove nothing alone, such as the number of a pipeline, tell which one it is
        # within the owner's project.
        code = [c for c in profile.selective if c in profile.free and c not in owner.composed]
        named = draft.pin(*owner.paths)
        if not draft.pin(*code) and not named:
            draft.pin(*(claim for claim in owner.composed if claim == "sub"))
    if not (by_id or code_by_id) and profile.names:
        ids = ", ".join(profile.names[0].ids)
        draft.notes.append(
            f"The token has no ids, so the Role compares names, and whoever takes a name over is"
            f" admitted. With {ids} it would not: {profile.names[0].where}."
        )


def _pin_ref(draft: _Draft) -> None:
    profile = draft.profile
    claims = list(
        dict.fromkeys([*(claim for claim, _ in profile.ref_example), *profile.ref_claims])
    )
    if profile.short_ref:
        short, told_by = profile.short_ref
        if draft.has(told_by[-1]):
            claims.remove(short)
    restricting = {claim for claim, _ in profile.ref_example}
    for claim in claims:
        if profile.shapes.get(claim) is BOOLEAN:
            # "false" leaves the branches that anybody with write access may push.
            if claim in restricting and text(at(draft.claims, claim)) == "true":
                draft.pin(claim)
        elif draft.pin(claim) and _OF_A_PULL_REQUEST.match(draft.exact[KEY_PREFIX + claim]):
            draft.notes.append("The ref is that of one pull request, so the Role admits no other.")


def _pin_situations(draft: _Draft) -> None:
    """Name what a Role must name to admit the token at all, and warn of it."""
    for demand in draft.profile.demands:
        if demand.applies(draft.claims):
            draft.pin(*demand.claims[:1])
            draft.notes.append(
                f"Careful: {demand.sentence} This one does, so it also admits such a job that"
                " somebody else caused."
            )


def _job_name(draft: _Draft) -> str:
    profile, owner = draft.profile, draft.profile.owner
    code = [claim for claim in (*owner.paths, profile.fork_told_by) if claim and draft.has(claim)][
        :1
    ]
    if not code:
        named = [c for names in profile.names for c in names.names if c not in owner.composed]
        beside = [c for c in profile.selective if c in profile.free]
        code = [*owner.names, *named[-1:], *beside]
    if "jwt:sub" in draft.exact:
        code.append("sub")
    about = (*code, *(claim for claim, _ in profile.ref_example), *profile.environment_claims)
    told = [value for c in dict.fromkeys(about) if (value := text(at(draft.claims, c)))]
    parts = [re.sub(r"^refs/(?:heads|tags)/", "", v) for v in told if v not in {"true", "false"}]
    return _named(profile.name, dict.fromkeys(parts))


def _named(kind: str, parts: Iterable[str]) -> str:
    """Return a name that Kubernetes takes too, made of *parts*."""
    words = (_NOT_IN_A_NAME.sub("-", part.lower()).strip("-") for part in parts)
    name = "-".join(filter(None, words))
    if not name[:1].isalpha():
        name = f"{kind}-{name}"
    return name[:_NAME_CHARS].strip("-")


def _entries(values: Mapping[str, str], indent: int) -> Iterator[str]:
    for key, value in values.items():
        yield f"{' ' * indent}{_scalar(key)}: [{_scalar(value)}]"


def _scalar(value: str) -> str:
    """Return *value* as a double-quoted scalar of YAML, whole, on one line."""
    return quoted(value, _QUOTED_CHARS)
