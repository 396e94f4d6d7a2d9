"""
The table of all providers, and the questions that the rooms ask of it.

A provider is one file of this folder with a `PROFILE`. Nothing else in the broker lists providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType
from urllib.parse import urlsplit

import federation.providers
from federation.claims import Claims
from federation.providers.profile import Demand, Profile

__all__ = [
    "GENERIC",
    "LEEWAY",
    "PROFILES",
    "Demand",
    "Profile",
    "demands",
    "known_provider",
    "likely_providers",
    "shared",
]

LEEWAY = timedelta(seconds=30)
"""Tolerated difference between the clocks of issuer and broker."""

GENERIC = "generic"
"""The provider of an issuer of which nothing is known."""


def _profiles() -> Mapping[str, Profile]:
    package = federation.providers
    files = [import_module(f"{package.__name__}.{f.name}") for f in iter_modules(package.__path__)]
    found: list[Profile] = [file.PROFILE for file in files if hasattr(file, "PROFILE")]
    return MappingProxyType({profile.name: profile for profile in found})


PROFILES: Mapping[str, Profile] = _profiles()
"""By name, in the order of their names."""


def known_provider(iss: str) -> str | None:
    """The provider whose issuer *iss* is known to be, or None."""
    for name, profile in PROFILES.items():
        if profile.issuers and profile.issuers.fullmatch(iss):
            return name
    return None


def likely_providers(iss: str) -> tuple[str, ...]:
    """The providers of which an installation of one's own could have the issuer *iss*."""
    return tuple(
        name
        for name, profile in PROFILES.items()
        if profile.looks_like and profile.looks_like.search(iss)
    )


def shared(iss: str) -> bool:
    """True if strangers get tokens from the issuer *iss* too, whatever its path or port."""
    parts = urlsplit(iss)
    host = (parts.hostname or "").rstrip(".")
    return any(
        any(host == known or (known[0] == "." and host.endswith(known)) for known in hosts)
        and not (own and own.fullmatch(parts.path))
        for hosts, own in ((each.shared_hosts, each.own_paths) for each in PROFILES.values())
    )


def demands(provider: str, claims: Claims) -> tuple[Demand, ...]:
    """The demands of *provider* that a Role must meet before it may admit *claims*."""
    return tuple([demand for demand in PROFILES[provider].demands if demand.applies(claims)])
