"""
The authority: the URL of a provider, as a person or a gateway writes it.

One provider has several spellings, since its metadata is found under each of them. Where two are
compared, they must be taken for the same, or a gateway could hide whose client it publishes.
"""

from __future__ import annotations

DISCOVERY = "/.well-known/openid-configuration"
"""The path of the metadata below the authority (OpenID Connect Discovery 1.0, section 4)."""


def base_of(authority: str) -> str:
    """Return *authority* without slashes at its end, and without the path of the metadata."""
    return authority.removesuffix(DISCOVERY).rstrip("/")
