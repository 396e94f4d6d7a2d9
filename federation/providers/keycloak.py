"""
Keycloak, for people and for programs with a client of their own: each realm is an issuer.

Claims: https://www.keycloak.org/docs/latest/server_admin/. Mappers can add any other claim.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.providers.generic import PROFILE as GENERIC
from federation.providers.profile import OwnerClaims, Profile

PROFILE = Profile(
    name="keycloak",
    display_name="Keycloak",
    ci=False,
    issuer_example="https://sso.example.com/realms/octo",
    algorithms=GENERIC.algorithms,
    audience_list=True,
    id_token_typ="ID",
    scalars=frozenset(
        {
            *("iss", "sub", "azp", "client_id", "email", "email_verified", "preferred_username"),
            *("name", "given_name", "family_name", "scope", "sid", "typ", "acr"),
        }
    ),
    lists=frozenset({"groups", "/realm_access/roles", "allowed-origins"}),
    objects=frozenset({"realm_access", "resource_access"}),
    owner=OwnerClaims(
        ids=("sub", "azp", "client_id"),
        programs=("azp", "client_id"),
        groups=("groups", "roles", "/realm_access/roles"),
        # A client's own roles. `account` is the page on which people edit themselves.
        more_groups=re.compile(r"/resource_access/(?!account/)[^/]+/roles"),
        everybody=re.compile(r"default-roles-.+|offline_access|uma_authorization"),
    ),
    selective=("sub", "client_id", "azp"),
    free=MappingProxyType(
        dict.fromkeys(("name", "given_name", "family_name"), "people choose it themselves")
    ),
    circumstances=frozenset({"email_verified", "acr", "scope", "typ"}),
    verified_by=MappingProxyType({"email": "email_verified", "preferred_username": ""}),
)
