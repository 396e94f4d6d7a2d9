"""
The claims that each CI system and identity provider sends, beside what each of them is worth.

`docs/claims.md` is made from this. The values are those of sample tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from federation.providers.profile import Profile

_REGISTERED: Mapping[str, str] = {
    "iss": "the issuer",
    "aud": "the audience",
    "exp": "end of validity",
    "iat": "when it was issued",
    "nbf": "begin of validity",
    "jti": "the token's own id",
}
_VALUE_CHARS = 72

Payloads = Mapping[str, Mapping[str, object]]


def sent(profiles: Iterable[Profile], payloads: Payloads) -> Iterator[str]:
    """Yield the lines of a page with a section for each of *profiles* that has a sample."""
    for profile in sorted(profiles, key=lambda each: (not each.ci, each.display_name.lower())):
        own = {name: claims for name, claims in payloads.items() if _is_of(profile, name)}
        if not own:
            continue
        yield ""
        yield f"## {profile.display_name}"
        yield ""
        yield f"`provider: {profile.name}`, issuer for example `{profile.issuer_example}`"
        yield ""
        yield "| claim | for example | worth |"
        yield "| --- | --- | --- |"
        for claim, value in _merged(own.values()).items():
            yield f"| `{claim}` | {_shown(value)} | {worth(profile, claim)} |"
    yield ""


def worth(profile: Profile, claim: str) -> str:
    """Return what *claim* says in tokens of *profile*, in a few words."""
    owner = profile.owner
    if claim in _REGISTERED:
        return _REGISTERED[claim]
    said = [
        words
        for names, words in (
            (owner.ids, "**the owner, by id**"),
            (owner.code_ids, "**the code, by id**"),
            (owner.names, "the owner, by name"),
            (owner.paths, "the code, by name"),
            (owner.composed, "the owner within"),
            (owner.other_paths, "an owner, but not of the code"),
            (owner.groups, "groups and roles"),
            ((*profile.ref_claims, *profile.ref_within), "the ref"),
            (profile.environment_claims, "the environment"),
            (profile.file_refs, "a file and its ref"),
            (_demanded(profile), "a Role must name it in some situations"),
            (profile.free, "anybody can set it"),
            (profile.verified_by, "people name themselves in it"),
        )
        if claim in names
    ]
    if not said and claim in profile.circumstances:
        said.append("how it runs")
    if claim in profile.personal:
        said.append("about a person")
    return ", ".join(said)


def _demanded(profile: Profile) -> frozenset[str]:
    return frozenset(claim for demand in profile.demands for claim in demand.claims)


def _is_of(profile: Profile, sample: str) -> bool:
    return sample.startswith(f"{profile.name}-")


def _merged(tokens: Iterable[Mapping[str, object]]) -> Mapping[str, object]:
    """All claims of *tokens*, each with its first value that is not empty."""
    merged: dict[str, object] = {}
    for claims in tokens:
        for claim, value in claims.items():
            if claim not in merged or merged[claim] is None or merged[claim] == "":
                merged[claim] = value
    return dict(sorted(merged.items(), key=lambda each: (each[0] not in _REGISTERED, each[0])))


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if not text:
        return "empty"
    cut = text if len(text) <= _VALUE_CHARS else f"{text[:_VALUE_CHARS]}…"
    return f"`{cut}`".replace("|", "\\|")
