"""
Okta: each organisation is an issuer, and so is each of its authorization servers.

Claims: https://developer.okta.com/docs/reference/api/oidc/. An administrator can add others.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.providers.generic import PROFILE as GENERIC
from federation.providers.profile import OwnerClaims, Profile

PROFILE = Profile(
    name="okta",
    display_name="Okta",
    ci=False,
    issuers=re.compile(
        r"https://[a-z0-9-]+\.(?:okta|oktapreview|okta-emea)\.com(?:/oauth2/[A-Za-z0-9]+)?"
    ),
    issuer_example="https://octo.okta.com",
    algorithms=GENERIC.algorithms,
    audience_list=True,
    scalars=frozenset(
        {
            *("iss", "sub", "uid", "cid", "email", "email_verified", "preferred_username"),
            *("name", "given_name", "family_name", "ver", "idp"),
        }
    ),
    lists=frozenset({"groups", "scp", "amr"}),
    # `sub` is the login name in tokens for one's own API, and the user's id in ID tokens.
    owner=OwnerClaims(
        ids=("sub", "uid", "cid"),
        programs=("cid",),
        groups=("groups",),
        everybody=re.compile("Everyone"),
    ),
    selective=("sub", "uid", "cid"),
    free=MappingProxyType({"name": "people choose it themselves"}),
    circumstances=frozenset({"email_verified", "ver", "idp", "scp", "amr"}),
    verified_by=MappingProxyType({"email": "email_verified", "preferred_username": ""}),
)
