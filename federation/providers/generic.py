"""
Any other OpenID Connect issuer, such as Keycloak: nothing is known about its claims.

Roles on such an issuer are read with the fewest assumptions, and its tokens may have every form
that is still safe: more algorithms, a list of audiences, a key set whose one key has no `kid`.
"""

from __future__ import annotations

from federation.providers.profile import Profile, Provider

GENERIC = Profile(
    provider=Provider.GENERIC,
    display_name="generic",
    ci=False,
    algorithms=frozenset(f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512))
    | {"EdDSA"},
    # A person's token is kept for its lifetime and may be exchanged again.
    single_use=False,
    audience_list=True,
    key_id_optional=True,
)
