"""The session of a person who signed in, as pages see it."""

from __future__ import annotations

from dataclasses import dataclass, field

from federation.claims import Claims


@dataclass(frozen=True, slots=True)
class Session:
    """A person who signed in, until when, and the access token that acts for them."""

    person: str
    """The name to show: `name`, `email`, `preferred_username` or `sub`, whichever comes first."""
    claims: Claims = field(repr=False)
    """The claims of the ID token."""
    access_token: str = field(repr=False)
    expires: float
    """When the session ends, in seconds since the epoch."""
    csrf: str = field(repr=False)
    """The token that every form of this session carries as `csrf`."""

    @property
    def subject(self) -> str:
        """The person's `sub` at the provider."""
        return str(self.claims.get("sub", ""))
