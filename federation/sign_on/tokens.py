"""The provider's tokens after a sign-in, as values. No repr shows one."""

from __future__ import annotations

from dataclasses import dataclass, field

from federation.claims import Claims


@dataclass(frozen=True, slots=True)
class Tokens:
    """The provider's tokens, verified as far as they can be."""

    id_token: str = field(repr=False)
    """Empty where the provider gives none, as for client credentials."""
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    """Empty where the provider gives none."""
    claims: Claims = field(repr=False)
    """Of the ID token, or of the access token where there is no other."""

    @property
    def subject_token(self) -> str:
        """The token that is exchanged at the broker."""
        return self.id_token or self.access_token


@dataclass(frozen=True, slots=True)
class Answered:
    """The tokens as the token endpoint gave them. Nothing is verified."""

    access_token: str = field(repr=False)
    id_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
