"""
Documents as text: the sample set of most tests, and sets that trust the issuers of a test.

Tests that need model objects, not text, build them with `tests.harness.builders`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from federation.documents.assemble import assemble
from federation.documents.catalog import Catalog
from federation.documents.parse import parse
from tests.harness.builders import AUDIENCE, GENERIC, GITHUB, GITLAB

URL: Final = AUDIENCE
"""The broker's own URL: the audience that jobs ask for."""

HIDDEN: Final = "refs/heads/only-the-operator-knows"
"""A value that Roles require. No caller may ever see it."""

DOCUMENTS: Final = f"""
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {{name: github}}
spec: {{iss: "{GITHUB}", aud: ["{URL}"], tokenExpiry: 30m}}
---
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {{name: gitlab}}
spec: {{iss: "{GITLAB}", aud: ["{URL}"]}}
---
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {{name: idp}}
spec: {{iss: "{GENERIC}", aud: ["{URL}"], tokenExpiry: 1h}}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: deploy}}
spec:
  statement:
    - {{sid: deploy, effect: Allow, action: ["Function:*"], resource: ["dev:*"]}}
    - {{sid: never, effect: Deny, action: ["Function:Invoke"], resource: ["dev:vault"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: invoke}}
spec:
  statement:
    - {{sid: call, effect: Allow, action: ["Function:Invoke"], resource: ["prod:env", "prod:cows"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: look}}
spec:
  statement:
    - {{sid: look, effect: Allow, action: ["Function:List"], resource: ["*"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: octo-deployer}}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:repository: [octo-org/octo-repo]
      jwt:ref: [refs/heads/main]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: octo-invoker}}
spec:
  policy: [invoke, look]
  tokenExpiry: 10m
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:repository: [octo-org/octo-repo]
      jwt:ref: [refs/heads/main]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: octo-releaser}}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:ref: [{HIDDEN}]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: acme-deployer}}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["777"]
      jwt:ref: [{HIDDEN}]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: group-deployer}}
spec:
  policy: [look]
  condition:
    StringEqual:
      jwt:iss: ["{GITLAB}"]
      jwt:namespace_path: [octo-group]
      jwt:ref_path: [refs/heads/main]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: people}}
spec:
  policy: [look]
  principal:
    jwt:sub: [someone]
  condition:
    StringEqual:
      jwt:iss: ["{GENERIC}"]
"""


def catalog_of(text: str) -> Catalog:
    """The catalog of the documents in *text*."""
    assembled = assemble([parse("documents.yaml", text.encode())])
    assert assembled.catalog is not None, assembled.problems
    return assembled.catalog


def document(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, object]:
    """One document as a mapping."""
    return {
        "apiVersion": "iam.openfaas.com/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": dict(spec),
    }


def as_text(*documents: Mapping[str, object]) -> str:
    """*documents* as a file of YAML, with one line of JSON for each document."""
    return "\n---\n".join(map(json.dumps, documents))


def issuer(name: str, iss: str, **spec: object) -> dict[str, object]:
    """A JwtIssuer, by default a GitHub one whose keys are fetched."""
    return document(
        "JwtIssuer", name, {"iss": iss, "aud": [AUDIENCE], "provider": "github", **spec}
    )


def policy(name: str, *statements: Mapping[str, object]) -> dict[str, object]:
    """A Policy; its statements allow, and have numbers as their sid, unless they say otherwise."""
    defaults = [{"sid": f"s{number}", "effect": "Allow"} for number in range(len(statements))]
    merged = [default | dict(given) for default, given in zip(defaults, statements, strict=True)]
    return document("Policy", name, {"statement": merged})


def role(name: str, iss: str, *branches: str, policy: str = "deploy") -> dict[str, object]:
    """A Role for jobs on *branches* of the repository in `federation.demo.jobs`."""
    equal = {
        "jwt:iss": [iss],
        "jwt:repository_owner_id": ["13420041"],
        "jwt:repository_id": ["412890077"],
        "jwt:ref": [f"refs/heads/{branch}" for branch in branches or ("main",)],
    }
    return document("Role", name, {"policy": [policy], "condition": {"StringEqual": equal}})


DEPLOY: Final = policy("deploy", {"action": ["Function:*"], "resource": ["dev:*"]})
"""The Policy to do everything with the functions in `dev`."""
