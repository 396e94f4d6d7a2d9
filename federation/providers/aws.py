"""
AWS outbound identity federation: one issuer for each account.

Claims: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_token_claims.html.
All but `sub` lie within a claim that is called like a URL.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.providers.profile import ByCommand, JobToken, OwnerClaims, Profile, Shape

_WITHIN = "/https:~1~1sts.amazonaws.com~1"
_ACCOUNT, _ORGANISATION = f"{_WITHIN}/aws_account", f"{_WITHIN}/org_id"

PROFILE = Profile(
    name="aws",
    display_name="AWS",
    issuers=re.compile(r"https://[0-9a-f-]+\.tokens\.sts\.global\.api\.aws"),
    issuer_example="https://6a0c41d7-92be-4f0a-b1c3-5d8e7f60a924.tokens.sts.global.api.aws",
    no_issuers=MappingProxyType(
        {
            "https://sts.amazonaws.com": "an account's tokens come from "
            "https://<id>.tokens.sts.global.api.aws"
        }
    ),
    algorithms=frozenset({"RS256", "ES384"}),
    required=(_ACCOUNT,),
    scalars=frozenset({"iss", "sub", _ACCOUNT, _ORGANISATION, f"{_WITHIN}/source_region"}),
    objects=frozenset({"https://sts.amazonaws.com/"}),
    telling=(_ACCOUNT, _ORGANISATION),
    shapes=MappingProxyType(
        {
            "sub": Shape(
                whole=re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::[0-9]{12}:[^*]+"),
                words="an ARN, such as arn:aws:iam::705331894220:role/web-releaser",
                begins=("arn:aws",),
            ),
            _ACCOUNT: Shape(whole=re.compile(r"[0-9]{12}"), words="an account's twelve digits"),
        }
    ),
    owner=OwnerClaims(
        ids=(_ACCOUNT, _ORGANISATION),
        composed=MappingProxyType({"sub": re.compile(r"^arn:aws[a-z-]*:(?:iam|sts)::[0-9]+:")}),
        whole_issuer=(_ACCOUNT, _ORGANISATION, "sub"),
        pin=("sub", "arn:aws:iam::<account>:role/<role>"),
        sub_begins="arn:aws:iam::",
    ),
    selective=("sub", _ACCOUNT),
    free=MappingProxyType(
        {f"{_WITHIN}/request_tags": "the caller chooses them when it asks for the token"}
    ),
    circumstances=frozenset({f"{_WITHIN}/source_region"}),
    job_token=JobToken(
        marks=(),
        sources=(
            ByCommand(
                command=(
                    *("aws", "sts", "get-web-identity-token", "--audience", "{audience}"),
                    *("--signing-algorithm", "RS256", "--query", "WebIdentityToken"),
                    *("--output", "text"),
                )
            ),
        ),
        advice="Install the AWS CLI, give it credentials and a region, and switch outbound "
        "identity federation on in the account.",
        # A machine's role is not the job's, so it takes part only if somebody says so.
        only_if_asked=True,
    ),
)
