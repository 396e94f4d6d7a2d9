"""
The condition keys of each provider, by what the trust rules ask of them.

The rules read every Role of a set, so the keys are worked out once, from the provider table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from federation.policy.conditions import KEY_PREFIX, keys
from federation.providers.profile import REGISTERED
from federation.providers.table import GENERIC, PROFILES, Profile


@dataclass(frozen=True, slots=True)
class RuleKeys:
    """The condition keys of one provider."""

    refs: frozenset[str]
    """Keys that restrict the ref."""
    environments: frozenset[str]
    files: frozenset[str]
    """Keys whose values are a file and a ref."""
    with_separators: frozenset[str]
    """Keys in whose values a `*` runs over separators that mean something."""
    scalars: frozenset[str]
    lists: frozenset[str]
    ids: frozenset[str]
    programs: frozenset[str]
    groups: frozenset[str]
    people: frozenset[str]
    """Keys with which people name themselves."""
    id_patterns: frozenset[str]
    """Ids of which a pattern can say who. Where a provider makes ids, their beginning is chance."""
    whole_issuer: frozenset[str]
    code_paths: frozenset[str]
    """Paths that tell whose code runs well enough at an issuer of one's own, but do not pin it."""
    weak: frozenset[str]
    """Keys that say only how a job runs, or what anybody can choose."""
    free: frozenset[str]
    free_within: tuple[str, ...]
    """The beginnings of keys that lie within a free claim."""

    @classmethod
    def of(cls, profile: Profile) -> RuleKeys:
        """The keys of *profile*."""
        owner = profile.owner
        demanded = {claim for demand in profile.demands for claim in demand.claims}
        weak = keys(*profile.circumstances, *profile.free, *demanded, *_OF_ANY_TOKEN)
        return cls(
            refs=keys(*profile.ref_claims),
            environments=keys(*profile.environment_claims),
            files=keys(*profile.file_refs),
            with_separators=keys("sub", *profile.ref_claims, *profile.file_refs),
            scalars=keys(*profile.scalars) if profile.ci else frozenset(),
            lists=keys(*profile.lists) if profile.ci else frozenset(),
            ids=keys(*owner.ids),
            programs=keys(*owner.programs),
            groups=keys(*owner.groups),
            people=keys(*profile.verified_by),
            id_patterns=keys(*owner.ids) if profile.name == GENERIC else frozenset(),
            whole_issuer=keys(*owner.whole_issuer),
            code_paths=keys(*owner.other_paths) - weak,
            weak=weak,
            free=keys(*profile.free),
            free_within=tuple(sorted(map(_within, profile.free))),
        )


def _within(claim: str) -> str:
    """Return the beginning of the keys that lie within *claim*."""
    if claim.startswith("/"):
        return f"{KEY_PREFIX}{claim}/"
    return f"{KEY_PREFIX}/{claim.replace('~', '~0').replace('/', '~1')}/"


_OF_ANY_TOKEN = REGISTERED - {"sub"}
"""Claims that say nothing about whose token it is."""

RULE_KEYS: Mapping[str, RuleKeys] = MappingProxyType(
    {name: RuleKeys.of(profile) for name, profile in PROFILES.items()}
)
"""By the name of the provider."""
