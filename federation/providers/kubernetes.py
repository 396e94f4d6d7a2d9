"""
Kubernetes service accounts: each cluster is an issuer of its own.

Claims: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/. What
matters lies within the claim `kubernetes.io`. Legacy tokens from Secrets have no `exp` and no
`aud`, so they are refused.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.providers.profile import UUID, InFile, JobToken, OwnerClaims, Profile, Shape

_NAMESPACE = "/kubernetes.io/namespace"
_ACCOUNT = "/kubernetes.io/serviceaccount/name"
_ACCOUNT_ID = "/kubernetes.io/serviceaccount/uid"
_NAME = Shape(whole=re.compile(r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"), words="a Kubernetes name")

PROFILE = Profile(
    name="kubernetes",
    display_name="Kubernetes",
    issuers=re.compile(
        r"https://oidc\.eks\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/id/[0-9A-Z]+"
        r"|https://container\.googleapis\.com/v1/projects/[^/]+/locations/[^/]+/clusters/[^/]+"
        r"|https://[a-z0-9-]+\.oic\.prod-aks\.azure\.com/[0-9a-f-]+/[0-9a-f-]+/"
    ),
    looks_like=re.compile(r"^https://kubernetes\.default\.svc(?:\.cluster\.local)?/?$"),
    issuer_example="https://kubernetes.default.svc.cluster.local",
    default_audiences=re.compile(r"https://kubernetes\.default\.svc(?:\.cluster\.local)?"),
    algorithms=frozenset({"RS256", "ES256", "ES384", "ES512"}),
    required=(_NAMESPACE, _ACCOUNT),
    # The kubelet renews the file at 80 % of its life, and each container that mounts it has the
    # same token: to take it once would refuse the second request.
    single_use=False,
    audience_list=True,
    azp_is_client=False,
    scalars=frozenset(
        {
            *("iss", "sub", _NAMESPACE, _ACCOUNT, _ACCOUNT_ID),
            *("/kubernetes.io/pod/name", "/kubernetes.io/pod/uid", "/kubernetes.io/warnafter"),
            *("/kubernetes.io/node/name", "/kubernetes.io/node/uid"),
            *("/kubernetes.io/secret/name", "/kubernetes.io/secret/uid"),
        }
    ),
    objects=frozenset({"kubernetes.io"}),
    telling=(_NAMESPACE, _ACCOUNT, _ACCOUNT_ID),
    shapes=MappingProxyType(
        {
            **dict.fromkeys((_NAMESPACE, _ACCOUNT), _NAME),
            _ACCOUNT_ID: UUID,
            "sub": Shape(
                whole=re.compile(r"system:serviceaccount:[^:]+:[^:]+"),
                words="system:serviceaccount:NAMESPACE:NAME",
                begins=("system:serviceaccount:",),
                slips=(
                    (re.compile(r"([a-z0-9-]+)[:/]([a-z0-9-.]+)"), r"system:serviceaccount:\1:\2"),
                ),
            ),
        }
    ),
    owner=OwnerClaims(
        names=(_NAMESPACE,),
        code_ids=(_ACCOUNT_ID,),
        composed=MappingProxyType({"sub": re.compile(r"^system:serviceaccount:[^:]+:")}),
        pin=("sub", "system:serviceaccount:<namespace>:<name>"),
        sub_begins="system:serviceaccount:",
    ),
    selective=("sub", _ACCOUNT_ID, _ACCOUNT, _NAMESPACE),
    free=MappingProxyType(
        {
            _ACCOUNT: "every namespace can have an account called so",
            "/kubernetes.io/pod/name": "whoever may create a pod chooses it",
            "/kubernetes.io/node/name": "whoever may create a pod can choose it",
        }
    ),
    circumstances=frozenset(
        {
            *("/kubernetes.io/pod/uid", "/kubernetes.io/node/uid", "/kubernetes.io/warnafter"),
            *("/kubernetes.io/secret/name", "/kubernetes.io/secret/uid"),
        }
    ),
    job_token=JobToken(
        marks=(("KUBERNETES_SERVICE_HOST", ""),),
        sources=(
            InFile(path="/var/run/secrets/federation/token", named_by="FEDERATION_ID_TOKEN_FILE"),
        ),
        advice="Mount a token for this audience at /var/run/secrets/federation:\n"
        "  volumes:\n  - name: federation\n    projected:\n      sources:\n"
        "      - serviceAccountToken: {{path: token, audience: {audience}, expirationSeconds: 600}}",
        platform=True,
    ),
)
