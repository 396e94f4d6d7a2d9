"""
Microsoft Entra ID: each tenant is an issuer, and some addresses are those of everybody.

Claims: https://learn.microsoft.com/en-us/entra/identity-platform/id-token-claims-reference.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.providers.profile import UUID, OwnerClaims, Profile

_PERSONAL = "9188040d-6c67-4c5b-b112-36a304b66dad"
"""The tenant of all personal accounts, in which anybody can sign up."""

PROFILE = Profile(
    name="entra",
    display_name="Microsoft Entra ID",
    ci=False,
    issuers=re.compile(
        r"https://login\.microsoftonline\.(?:com|us)/[^/]+/v2\.0|https://sts\.windows\.net/[^/]+/"
    ),
    issuer_example="https://login.microsoftonline.com/3c1f4a02-6d7e-4b19-8c55-0e9f2a7b6d31/v2.0",
    shared_hosts=("login.microsoftonline.com", "login.microsoftonline.us", "sts.windows.net"),
    own_paths=re.compile(rf"/(?!{_PERSONAL}){UUID.whole.pattern}(?:/v2\.0|/)"),
    no_issuers=MappingProxyType(
        {
            f"https://login.microsoftonline.com/{tenant}/v2.0": "it is an address to sign in at, "
            "and tokens name their tenant instead"
            for tenant in ("common", "organizations", "consumers")
        }
    ),
    algorithms=frozenset({"RS256"}),
    scalars=frozenset(
        {
            *("iss", "sub", "tid", "oid", "azp", "appid", "azpacr", "appidacr", "email", "upn"),
            *("preferred_username", "name", "uti", "ver", "idp", "unique_name", "scp"),
        }
    ),
    lists=frozenset({"roles", "groups", "wids"}),
    shapes=MappingProxyType(dict.fromkeys(("tid", "oid", "azp", "appid"), UUID)),
    owner=OwnerClaims(
        # The tenant of personal accounts is everybody's, and whoever has an account anywhere can
        # sign in to some applications. So `tid` proves nothing, and an application's id only
        # within one's own tenant.
        ids=("oid", "sub"),
        programs=("azp", "appid"),
        groups=("groups", "roles", "wids", "azp", "appid"),
        pin=("oid", "<object id>"),
    ),
    selective=("oid", "sub", "azp", "tid"),
    free=MappingProxyType({"name": "people choose it themselves"}),
    circumstances=frozenset({"tid", "ver", "azpacr", "appidacr", "idp", "scp"}),
    verified_by=MappingProxyType(
        dict.fromkeys(("preferred_username", "email", "upn", "unique_name"), "")
    ),
)
