"""Objects and AdmissionReviews for tests of the admission webhook."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

NAMESPACE: Final = "openfaas"
GITHUB: Final = "https://token.actions.githubusercontent.com"
IDP: Final = "https://idp.example"
PINNED: Final[Mapping[str, str]] = {
    "repository_owner_id": "13420041",
    "repository_id": "771",
    "ref": "refs/heads/main",
}
"""Conditions of a Role on github.com that has no error and no warning."""

_RESOURCES = {"JwtIssuer": "jwtissuers", "Policy": "policies", "Role": "roles"}


def document(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """An object of ours."""
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "iam.openfaas.com/v1", "kind": kind, "metadata": metadata, "spec": spec}


def role(name: str, *, policy: str = "deploy", iss: str = GITHUB, **pins: str) -> dict[str, Any]:
    """A Role that admits the tokens of *iss* whose claims are *pins*."""
    equal = {"jwt:iss": [iss]} | {f"jwt:{claim}": [value] for claim, value in pins.items()}
    return document("Role", name, {"policy": [policy], "condition": {"StringEqual": equal}})


def issuer(name: str, iss: str = GITHUB, **more: Any) -> dict[str, Any]:
    """A JwtIssuer."""
    return document("JwtIssuer", name, {"iss": iss, "aud": ["https://broker.example"], **more})


def policy(name: str) -> dict[str, Any]:
    """A Policy with one Allow."""
    statement = {"sid": "a", "effect": "Allow", "action": ["Function:*"], "resource": ["dev:*"]}
    return document("Policy", name, {"statement": [statement]})


def question(subject: Mapping[str, Any], **changes: Any) -> bytes:
    """An AdmissionReview about the creation of *subject*. *changes* are of its request."""
    kind = subject["kind"]
    group, _, version = subject["apiVersion"].partition("/")
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": group, "version": version, "resource": _RESOURCES[kind]},
        "name": subject["metadata"]["name"],
        "namespace": NAMESPACE,
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:masters"]},
        "object": subject,
        "oldObject": None,
        "dryRun": False,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
    } | changes
    envelope = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
    return json.dumps({**envelope, "request": request}).encode()
