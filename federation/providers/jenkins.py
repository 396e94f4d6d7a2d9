"""
Jenkins with its OpenID Connect Provider plugin: each controller is an issuer of its own.

Claims: https://plugins.jenkins.io/oidc-provider/. An administrator chooses them; these are the
defaults.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.errors import Reason
from federation.providers.profile import (
    DIGITS,
    InVariable,
    JobToken,
    OwnerClaims,
    Profile,
    Shape,
)

PROFILE = Profile(
    name="jenkins",
    display_name="Jenkins",
    looks_like=re.compile(r"^https?://[^/]*jenkins[^/]*/(?:.+/)?oidc/?$"),
    issuer_example="https://jenkins.example.com/oidc",
    required=("build_number",),
    lacking=Reason.NOT_A_CI_TOKEN,
    scalars=frozenset({"iss", "sub", "build_number"}),
    more_claims=re.compile(r".+"),
    shapes=MappingProxyType(
        {
            "build_number": DIGITS,
            "sub": Shape(
                whole=re.compile(r"https?://[^*]+"),
                words="the job's URL, such as https://jenkins.example.com/job/web/job/main/",
                begins=("http://", "https://"),
            ),
        }
    ),
    owner=OwnerClaims(
        composed=MappingProxyType({"sub": re.compile(r"^https?://[^/]+/(?:[^/]+/)*?job/[^/]+/")}),
        separator="/",
        pin=("sub", "<the job's URL>"),
        sub_begins="https://<controller>/job/",
    ),
    circumstances=frozenset({"build_number"}),
    job_token=JobToken(
        marks=(("JENKINS_URL", ""),),
        sources=(InVariable(names=("FEDERATION_ID_TOKEN",)),),
        advice="Add an OpenID Connect id token credential with the audience {audience}, and bind "
        "it to FEDERATION_ID_TOKEN with withCredentials.",
    ),
)
