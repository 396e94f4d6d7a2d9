"""
The table of all providers, and the questions that the rooms ask of it.

A provider is one file of this folder, a member of `Provider` and a line of `PROFILES`. Nothing
else in the broker lists providers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from urllib.parse import urlsplit

from federation.claims import Claims
from federation.providers.generic import GENERIC
from federation.providers.github import GITHUB
from federation.providers.gitlab import GITLAB
from federation.providers.profile import Demand, Profile, Provider

__all__ = [
    "LEEWAY",
    "PROFILES",
    "Demand",
    "Profile",
    "Provider",
    "all_claims",
    "demands",
    "known_provider",
    "shared",
]

LEEWAY = timedelta(seconds=30)
"""How far the clocks of issuer and broker may differ."""

PROFILES: Mapping[Provider, Profile] = MappingProxyType(
    {profile.provider: profile for profile in (GITHUB, GITLAB, GENERIC)}
)


def known_provider(iss: str) -> Provider | None:
    """The provider whose issuer *iss* is known to be, or None."""
    for provider, profile in PROFILES.items():
        if profile.issuers and profile.issuers.fullmatch(iss):
            return provider
    return None


def shared(iss: str) -> bool:
    """True if strangers get tokens from the issuer *iss* too, whatever its path or port."""
    host = urlsplit(iss).hostname or ""
    return any(
        host == known or (known.startswith(".") and host.endswith(known))
        for profile in PROFILES.values()
        for known in profile.shared_hosts
    )


def demands(provider: Provider, claims: Claims) -> tuple[Demand, ...]:
    """The demands of *provider* that a Role must meet before it may admit *claims*."""
    return tuple([demand for demand in PROFILES[provider].demands if demand.applies(claims)])


def all_claims(of: Callable[[Profile], Iterable[str]]) -> tuple[str, ...]:
    """The claims that *of* takes from each profile, each claim once, in the table's order."""
    return tuple(dict.fromkeys(claim for profile in PROFILES.values() for claim in of(profile)))
