"""
Auth0: each tenant is an issuer, and by default anybody can sign up there.

Claims: https://auth0.com/docs/secure/tokens/id-tokens/id-token-structure. An action can add others,
whose names are URLs.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.providers.profile import OwnerClaims, Profile

PROFILE = Profile(
    name="auth0",
    display_name="Auth0",
    ci=False,
    issuers=re.compile(r"https://[a-z0-9-]+(?:\.[a-z]{2})?\.auth0\.com/"),
    issuer_example="https://octo.eu.auth0.com/",
    audience_list=True,
    scalars=frozenset(
        {
            *("iss", "sub", "azp", "org_id", "org_name", "email", "email_verified", "nickname"),
            *("name", "given_name", "family_name", "picture", "updated_at", "scope"),
        }
    ),
    lists=frozenset({"permissions"}),
    owner=OwnerClaims(ids=("sub", "org_id"), groups=("permissions", "groups", "roles")),
    selective=("sub", "org_id"),
    free=MappingProxyType(
        dict.fromkeys(("name", "nickname", "given_name"), "people choose it themselves")
        | {"azp": "it names the application, and anybody may have signed up for it"}
    ),
    circumstances=frozenset({"email_verified", "scope"}),
    verified_by=MappingProxyType({"email": "email_verified"}),
)
