"""
The facts that the broker keeps about a provider: one `Profile` for each kind of issuer.

A provider's file holds one `Profile` and nothing else decides by provider: the rooms that verify,
admit and check documents read these fields. Claims are named as tokens name them, without `jwt:`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from federation.claims import Claims
from federation.errors import Reason
from federation.policy.conditions import keys


class Provider(StrEnum):
    """The kinds of issuer, as the field `provider` of a JwtIssuer document names them."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """
    A situation in which only Roles that name one of *claims* in a positive condition may admit.

    The signature of such a token is good, but somebody who does not own the code may have
    caused the job. A Role that never mentions the situation was not written for it.
    """

    applies: Callable[[Claims], bool]
    """Return whether a token's claims are of this situation."""
    claims: tuple[str, ...]
    sentence: str
    """The sentence for the caller when no Role meets the demand."""
    wildcard_admits: str
    """The tokens that a condition on one of *claims* admits if its value is only wildcards."""

    @property
    def keys(self) -> frozenset[str]:
        """The condition keys of *claims*."""
        return keys(*self.claims)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerClaims:
    """The claims that say who owns the code, by the form of their values."""

    ids: tuple[str, ...] = ()
    """The owner's id. Also a component of `sub`."""
    names: tuple[str, ...] = ()
    """The owner's name and nothing else. Also a component of `sub`."""
    code_ids: tuple[str, ...] = ()
    """The id of a repository or project. It fixes the owner without naming it. Also in `sub`."""
    paths: tuple[str, ...] = ()
    """A path that begins with the owner, as in `OWNER/NAME`. Also a component of `sub`."""
    sub_paths: tuple[str, ...] = ()
    """Components of `sub` that hold such a path and are no claims of their own."""
    other_paths: tuple[str, ...] = ()
    """Paths that begin with an owner, but not with the owner of the code that runs."""
    path_and_owner: tuple[str, str] | None = None
    """Two claims of which the first is a path whose part before the last `/` is the second."""
    pin: tuple[str, str] = ("sub", "<the caller's sub>")
    """The claim that a hint advises to pin, and the placeholder for its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameWithId:
    """Claims that hold names, which change hands, and the ids that do not."""

    names: tuple[str, ...]
    ids: tuple[str, ...]
    """The one that a hint advises comes first."""
    where: str = ""
    """The place where an operator can look the id up."""
    sub_name: re.Pattern[str] | None = None
    """Found in a `sub` that holds such a name."""
    sub_id: re.Pattern[str] | None = None
    """Found in a `sub` that holds such an id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All facts about one provider."""

    provider: Provider
    display_name: str
    ci: bool = True
    """True if its tokens are made for CI jobs, with the claims below and no others."""

    # Which issuers it has
    issuers: re.Pattern[str] | None = None
    """The whole `iss` of the issuers that are known to be this provider's."""
    shared_hosts: tuple[str, ...] = ()
    """Hosts that give tokens to strangers too; one that begins with `.` includes all below it."""

    # What its tokens look like
    algorithms: frozenset[str] = frozenset({"RS256"})
    required: tuple[str, ...] = ()
    """Claims that make a token one of a job."""
    lacking: Reason = Reason.MISSING_CLAIM
    """The reason of the refusal when a required claim is missing."""
    single_use: bool = True
    """True if a subject token is accepted once, unless the issuer's document says otherwise."""
    audience_list: bool = False
    """True if `aud` may list other audiences beside ours."""
    key_id_optional: bool = False
    azp_is_client: bool = True
    """True if `azp`, where a token has it, names the client that the token was issued to."""
    id_token_typ: str | None = None
    """The claim `typ` of ID tokens, if the provider's access tokens and ID tokens differ by it."""
    scalars: frozenset[str] = frozenset()
    """Claims that are one value."""
    lists: frozenset[str] = frozenset()
    """Claims that are a list of strings."""
    starless: frozenset[str] = frozenset()
    """Claims whose values cannot hold a `*`."""

    # What its claims prove
    owner: OwnerClaims = OwnerClaims()
    selective: tuple[str, ...] = ("sub",)
    """Claims by which the catalog files Roles: those that few Roles have in common come first."""
    free: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Claims that a stranger may set to any value, each with the reason."""
    circumstances: frozenset[str] = frozenset()
    """Claims about how a job runs. A stranger's own project can have each of their values."""
    demands: tuple[Demand, ...] = ()
    names: tuple[NameWithId, ...] = ()
    ref_claims: tuple[str, ...] = ()
    """Claims that restrict the branch or tag. Also components of `sub`."""

    # What the hints of the trust rules say
    ref_example: tuple[tuple[str, str], ...] = ()
    """Claims and values that restrict a Role to one branch."""
    sub_begins: str = "repo:"
    """The beginning of a `sub` that names the owner next."""
