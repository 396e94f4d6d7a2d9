"""
A sign-in under way: the values that bind the provider's answer to it.

`state` binds the answer to the browser (RFC 9700, section 4.7.1), the nonce binds the ID token to
this sign-in, and the code verifier binds the code to this client (RFC 7636). Each is fresh.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

_BYTES = 32
"""256 bits. In base64url they have 43 characters, the least that RFC 7636 allows a verifier."""


@dataclass(frozen=True, slots=True)
class Pending:
    """One sign-in under way. Only its browser may finish it, and only once."""

    redirect_uri: str
    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    """The PKCE code verifier (RFC 7636). It never leaves this process but to the token endpoint."""

    @classmethod
    def fresh(cls, redirect_uri: str) -> Pending:
        """Return a new sign-in, with random values that nobody can guess."""
        return cls(redirect_uri, fresh_secret(), fresh_secret(), fresh_secret())


def fresh_secret() -> str:
    """Return a random value of characters that need no encoding in a URL."""
    return secrets.token_urlsafe(_BYTES)
