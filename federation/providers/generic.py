"""
Any other OpenID Connect issuer: nothing is known about its claims.

Roles on such an issuer are read with the fewest assumptions, and its tokens may have every form
that is still safe: more algorithms, a list of audiences, a key set whose one key has no `kid`.
"""

from __future__ import annotations

from types import MappingProxyType

from federation.providers.profile import OwnerClaims, Profile

PROFILE = Profile(
    name="generic",
    display_name="Any other issuer",
    ci=False,
    issuer_example="https://idp.example.com",
    algorithms=frozenset(
        {
            *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
            *("ES256", "ES384", "ES512", "EdDSA"),
        }
    ),
    audience_list=True,
    owner=OwnerClaims(
        ids=("sub", "azp", "client_id", "tid", "oid", "org_id"),
        programs=("azp", "client_id"),
        groups=("groups", "groups_direct", "roles", "/realm_access/roles", "entitlements"),
    ),
    selective=("sub", "client_id", "azp"),
    free=MappingProxyType(
        {
            "workflow": "it is a display name, and anybody can call a workflow so",
            "job_workflow_ref": "any repository may call a workflow",
            "actor": "it names who started something, not whose code runs",
            "name": "people choose it themselves",
            "nickname": "people choose it themselves",
        }
    ),
    circumstances=frozenset(
        {
            *("email_verified", "typ", "ver", "acr", "amr", "auth_time", "nonce", "sid"),
            *("token_use", "ref", "ref_path", "ref_type", "ref_protected", "environment"),
            *("event_name", "pipeline_source", "branch"),
        }
    ),
    verified_by=MappingProxyType(
        {
            "email": "email_verified",
            "user_email": "",
            "user_login": "",
            "preferred_username": "",
            "upn": "",
        }
    ),
)
