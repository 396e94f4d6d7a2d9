"""
Google: every person and every service account of the world has tokens of one issuer.

Claims: https://docs.cloud.google.com/compute/docs/instances/verifying-instance-identity and
https://developers.google.com/identity/openid-connect/openid-connect.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.providers.profile import (
    BOOLEAN,
    DIGITS,
    ByMetadata,
    JobToken,
    NameWithId,
    OwnerClaims,
    Profile,
    Shape,
)

PROFILE = Profile(
    name="google",
    display_name="Google",
    ci=False,
    issuers=re.compile(r"https://accounts\.google\.com"),
    issuer_example="https://accounts.google.com",
    shared_hosts=("accounts.google.com",),
    keys_elsewhere=MappingProxyType(
        {"https://accounts.google.com": "https://www.googleapis.com/oauth2/v3/certs"}
    ),
    azp_is_client=False,
    no_issuers=MappingProxyType(
        {"https://google.com": "Google's tokens come from https://accounts.google.com"}
    ),
    scalars=frozenset(
        {
            *("iss", "sub", "azp", "email", "email_verified", "hd", "name", "picture"),
            *("given_name", "family_name", "locale"),
        }
    ),
    objects=frozenset({"google"}),
    shapes=MappingProxyType(
        {
            "sub": DIGITS,
            "email_verified": BOOLEAN,
            "hd": Shape(whole=re.compile(r"[^.@/:*\s]+(?:\.[^.@/:*\s]+)+"), words="a domain"),
            "email": Shape(whole=re.compile(r"[^@\s*]+@[^@\s*]+"), words="a whole address"),
        }
    ),
    owner=OwnerClaims(
        ids=("sub",),
        names=("email", "hd"),
        pin=("sub", "<number of the account>"),
    ),
    selective=("sub", "email", "hd"),
    free=MappingProxyType(
        {
            "name": "people choose it themselves",
            "given_name": "people choose it themselves",
            "azp": "it names the program that asked for the token",
            "/google/compute_engine/instance_name": "in a project of one's own it can be anything",
            "/google/compute_engine/project_id": "it is in tokens of machines, and is no proof of "
            "which account runs there",
        }
    ),
    circumstances=frozenset({"email_verified", "locale", "/google/compute_engine/zone"}),
    names=(
        NameWithId(
            names=("email",),
            ids=("sub",),
            where="it is the sub in the person's token, and the uniqueId that `gcloud iam "
            "service-accounts describe EMAIL` prints",
        ),
    ),
    only_if=MappingProxyType(
        dict.fromkeys(
            ("email", "email_verified"),
            "the token is asked for with format=full or --include-email",
        )
        | {"hd": "the person belongs to a Workspace"}
    ),
    verified_by=MappingProxyType({"email": "email_verified"}),
    job_token=JobToken(
        marks=(),
        sources=(
            ByMetadata(
                url="http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/"
                "default/identity?audience={audience}&format=full",
                headers=(("Metadata-Flavor", "Google"),),
            ),
        ),
        advice="On Google Cloud, give the machine a service account.",
        only_if_asked=True,
    ),
)
