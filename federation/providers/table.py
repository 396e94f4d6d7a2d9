"""
What is known of each kind of issuer, as data: the differences between providers in one table.

A profile says which signatures a token may carry, which claims make it a CI token, which of
them name the owner of the code, and which situations a Role must speak about before it may
admit. Rooms that verify, admit and lint all read the same table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import urlsplit

from federation.claims import Claims, text
from federation.errors import Reason

__all__ = [
    "LEEWAY",
    "PROFILES",
    "Demand",
    "Profile",
    "Provider",
    "demands",
    "known_provider",
    "shared",
]

LEEWAY = timedelta(seconds=30)
"""How far the clocks of issuer and broker may differ."""


class Provider(StrEnum):
    """Which profile applies to an issuer's tokens."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class Demand:
    """A situation that admits only Roles which name one of *keys* in a positive condition."""

    keys: frozenset[str]
    sentence: str

    @classmethod
    def of(cls, sentence: str, *claims: str) -> Demand:
        """A demand for any one of *claims* to be named."""
        return cls(frozenset(f"jwt:{claim}" for claim in claims), sentence)


@dataclass(frozen=True, slots=True)
class Profile:
    """What tokens of one kind of issuer look like."""

    algorithms: frozenset[str]
    required: tuple[str, ...]
    lacking: Reason
    """What it is called when a required claim is missing."""
    single_use: bool
    """Whether a subject token is taken once, where the issuer document does not say."""
    audience_list: bool
    """Whether `aud` may list others beside ours."""
    key_id_optional: bool


PROFILES: Mapping[Provider, Profile] = MappingProxyType(
    {
        Provider.GITHUB: Profile(
            algorithms=frozenset({"RS256"}),
            required=(
                "repository",
                "repository_owner",
                "repository_id",
                "repository_owner_id",
                "event_name",
            ),
            lacking=Reason.MISSING_CLAIM,
            single_use=True,
            audience_list=False,
            key_id_optional=False,
        ),
        # A person's sign-in token has the same issuer and the same key set as a CI token.
        # These three claims are what tells them apart.
        Provider.GITLAB: Profile(
            algorithms=frozenset({"RS256"}),
            required=("project_id", "pipeline_id", "job_id"),
            lacking=Reason.NOT_A_CI_TOKEN,
            single_use=True,
            audience_list=False,
            key_id_optional=False,
        ),
        Provider.GENERIC: Profile(
            algorithms=frozenset({"RS256", "PS256", "ES256", "ES384", "EdDSA"}),
            required=(),
            lacking=Reason.MISSING_CLAIM,
            single_use=False,
            audience_list=True,
            key_id_optional=True,
        ),
    }
)

# Events that somebody outside the repository can cause, while the job runs in the context of
# the base repository: `ref` and `sub` then look like a push to the default branch.
_OUTSIDERS_EVENTS = frozenset(
    {
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
    }
)
_NAME_THE_EVENT = Demand.of(
    "Outsiders can cause this event, so only Roles that name jwt:event_name may admit it.",
    "event_name",
)
_NAME_THE_SOURCE = Demand.of(
    "This is a merge request pipeline, so only Roles that name jwt:pipeline_source may admit it.",
    "pipeline_source",
)
_NAME_BOTH_PROJECTS = Demand.of(
    "The code comes from a fork, so only Roles that name a jwt:job_project_ key may admit it.",
    "job_project_id",
    "job_project_path",
)


def demands(provider: Provider, claims: Claims) -> tuple[Demand, ...]:
    """What a Role must name before it may admit *claims*."""
    match provider:
        case Provider.GITHUB:
            outsiders = text(claims.get("event_name")) in _OUTSIDERS_EVENTS
            return (_NAME_THE_EVENT,) if outsiders else ()
        case Provider.GITLAB:
            return _gitlab_demands(claims)
        case Provider.GENERIC:
            return ()


def _gitlab_demands(claims: Claims) -> tuple[Demand, ...]:
    merge_request = claims.get("pipeline_source") == "merge_request_event"
    runs_in = text(claims.get("job_project_id"))  # absent before GitLab 18.4
    from_fork = runs_in is not None and runs_in != text(claims.get("project_id"))
    return (_NAME_THE_SOURCE,) * merge_request + (_NAME_BOTH_PROJECTS,) * from_fork


_GITHUB_HOST = "token.actions.githubusercontent.com"
_GHE_HOST = re.compile(r"token\.actions\.[a-z0-9-]+\.ghe\.com")


def known_provider(iss: str) -> Provider | None:
    """The provider that *iss* itself tells, None where it tells nothing."""
    parts = urlsplit(iss)
    if parts.scheme != "https":
        return None
    if parts.netloc == _GITHUB_HOST or _GHE_HOST.fullmatch(parts.netloc):
        return Provider.GITHUB
    return Provider.GITLAB if iss == "https://gitlab.com" else None


def shared(iss: str) -> bool:
    """Whether strangers get tokens from this issuer too: github.com in any form, gitlab.com."""
    host = urlsplit(iss).hostname or ""
    return host == "gitlab.com" or host.endswith(".actions.githubusercontent.com")
