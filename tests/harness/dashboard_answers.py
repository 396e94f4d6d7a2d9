"""
A broker and a gateway for tests of the dashboard's pages: plain answers that a test changes.

`PeoplesBroker` answers the API for people and the gateway's API. Its members are the answers; a
test replaces one, or adds an error by path.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import httpx2

from tests.harness.dashboard import NOW, FakeBroker

ISSUER = "https://gateway.example.com"
GITHUB = "https://token.actions.githubusercontent.com"

JOB: Mapping[str, Any] = {
    "iss": GITHUB,
    "aud": ISSUER,
    "sub": "repo:octo-org/octo-repo:ref:refs/heads/feature/login",
    "repository": "octo-org/octo-repo",
    "repository_owner": "octo-org",
    "repository_owner_id": "13420041",
    "ref": "refs/heads/feature/login",
    "event_name": "push",
    "run_number": 129,
    "environment_node": None,
    "labels": ["self-hosted", "linux"],
}

WHOAMI: Mapping[str, Any] = {
    "sub": "fed:alice-id",
    "issuer": ISSUER,
    "fed_issuer": "https://idp.example.com",
    "roles": ["developers"],
    "policies": ["dev-rw", "guard"],
    "policies_missing": [],
    "issued": int(NOW),
    "expires": int(NOW) + 900,
    "claims": {"name": "Alice", "groups": ["developers"]},
    "statements": [
        {
            "policy": "dev-rw",
            "sid": "functions",
            "effect": "Allow",
            "actions": ["Function:*", "Secret:List"],
            "resources": ["dev:*", "team-*:*"],
            "conditions": [],
            "applies": True,
        },
        {
            "policy": "guard",
            "sid": "no-delete",
            "effect": "Deny",
            "actions": ["Function:Delete"],
            "resources": ["dev:payments"],
            "conditions": [
                {
                    "operator": "StringNotEqual",
                    "key": "jwt:email",
                    "values": ["ops@example.com", "root@example.com"],
                }
            ],
            "applies": False,
        },
    ],
}

FIGLET: Mapping[str, Any] = {
    "name": "figlet",
    "namespace": "dev",
    "image": "registry.example.com/figlet:1.4.2",
    "envProcess": "figlet -f small",
    "envVars": {"API_KEY": "the-secret-value", "MODE": "loud"},
    "labels": {"com.openfaas.scale.min": "1", "team": "web"},
    "annotations": {"topic": "banners"},
    "secrets": ["figlet-key"],
    "constraints": None,
    "limits": {"memory": "128Mi"},
    "requests": None,
    "invocationCount": 1024,
    "replicas": 2,
    "availableReplicas": 2,
    "createdAt": "2027-01-14T08:00:00Z",
    "usage": {"cpu": 0.5, "totalMemoryBytes": 4194304},
}

EVENT: Mapping[str, Any] = {
    "event_id": "0" * 31 + "1",
    "request_id": "req-1",
    "time": "2027-01-15T07:59:00.000000Z",
    "path": "/oauth/token",
    "method": "POST",
    "response_code": 400,
    "actor": {"sub": JOB["sub"], "issuer": ISSUER, "fed_issuer": GITHUB},
    "actions": [],
    "namespace": "",
    "roles": [],
    "policies": [],
    "reason": "no_role_admits",
    "custom_message": "No policies found for subject: repo:octo-org/octo-repo.",
    "token_sha256": "ab" * 32,
    "claims": dict(JOB),
    "claims_cut": ["environment_url"],
}
DEPLOYED: Mapping[str, Any] = {
    **EVENT,
    "event_id": "0" * 31 + "2",
    "path": "/system/functions",
    "method": "PUT",
    "response_code": 202,
    "actor": {"sub": "fed:repo:octo-org/octo-repo:ref:refs/heads/main", "issuer": ISSUER, "fed_issuer": GITHUB},
    "actions": ["Function:Update"],
    "namespace": "dev",
    "resource": "dev:figlet",
    "roles": ["deployer"],
    "policies": ["dev-rw"],
    "reason": None,
    "custom_message": "",
    "claims": None,
}  # fmt: skip


def _condition(key: str, values: list[str], claim: object, operator: str) -> dict[str, Any]:
    held = claim in values
    return {
        "operator": operator,
        "key": f"jwt:{key}",
        "values": values,
        "claim": claim,
        "holds": held,
    }


EXPLANATION: Mapping[str, Any] = {
    "token": None,
    "admitted": False,
    "roles": [
        {
            "name": "elsewhere",
            "admitted": False,
            "refusal": "role_not_admitted",
            "conditions": [
                _condition("iss", ["https://gitlab.com"], GITHUB, "StringEqual"),
            ],
        },
        {
            "name": "octo-main",
            "admitted": False,
            "refusal": "role_not_admitted",
            "conditions": [
                _condition("iss", [GITHUB], GITHUB, "StringEqual"),
                _condition("repository_owner_id", ["13420041"], "13420041", "StringEqual"),
                _condition("ref", ["refs/heads/main"], JOB["ref"], "StringEqual"),
            ],
        },
    ],
    "policies": [],
    "access": [],
    "claims": dict(JOB),
    "rule": "apiVersion: iam.openfaas.com/v1\nkind: Role\nmetadata:\n  name: octo-repo\n",
    "rule_notes": ["Pin the environment too, if there is one."],
}

DOCUMENTS: Mapping[str, Any] = {
    "documents": [
        {
            "kind": "Role",
            "name": "octo-main",
            "source": "roles.yaml:4",
            "spec": {"policy": ["dev-rw"], "condition": {"StringEqual": {"jwt:iss": [GITHUB]}}},
            "problems": [],
        },
        {
            "kind": "Policy",
            "name": "guard",
            "source": "policies.yaml:9",
            "spec": {"statement": []},
            "problems": [
                {
                    "code": "W109",
                    "severity": "warning",
                    "field": "metadata.name",
                    "message": "no Role uses this Policy",
                    "hint": "delete it",
                }
            ],
        },
    ],
    "degraded": ["The newest files are not in force: roles.yaml:1: error[D002]: not YAML"],
}

WHO_CAN: Mapping[str, Any] = {
    "action": "Function:Create",
    "resource": "dev:figlet",
    "roles": [
        {
            "name": "octo-main",
            "policy": "dev-rw",
            "sid": "functions",
            "conditions": [
                {"operator": "StringEqual", "key": "jwt:ref", "values": ["refs/heads/main"]}
            ],
            "denied_by": [{"policy": "guard", "sid": "no-create", "always": False}],
            "shadowed": False,
        }
    ],
}
ROLE_GIVES: Mapping[str, Any] = {
    "role": "octo-main",
    "conditions": [{"operator": "StringLike", "key": "jwt:ref", "values": ["refs/heads/*"]}],
    "grants": [
        {
            "policy": "dev-rw",
            "sid": "functions",
            "effect": "Allow",
            "actions": ["Function:Create", "Function:Update"],
            "resources": ["dev:*"],
            "conditions": [],
        }
    ],
}


class PeoplesBroker(FakeBroker):
    """A broker with an API for people, in front of a gateway with two functions."""

    def __init__(self) -> None:
        super().__init__()
        self.denied: set[str] = set()
        """Actions that are refused; every other one is allowed."""
        self.errors: dict[str, tuple[int, str]] = {}
        """By path: a status and a sentence that answer in its place."""
        self.whoami = copy.deepcopy(dict(WHOAMI))
        self.documents = copy.deepcopy(dict(DOCUMENTS))
        self.explanation = copy.deepcopy(dict(EXPLANATION))
        self.who_can = copy.deepcopy(dict(WHO_CAN))
        self.role_gives = copy.deepcopy(dict(ROLE_GIVES))
        self.events = [copy.deepcopy(dict(EVENT)), copy.deepcopy(dict(DEPLOYED))]
        self.next: str | None = None
        self.namespaces: Any = ["dev", "staging"]
        self.functions: list[dict[str, Any]] = [
            copy.deepcopy(dict(FIGLET)),
            {"name": "cows", "namespace": "staging", "image": "cows:1", "replicas": 0},
        ]
        self.lines: list[dict[str, str]] = [
            {"timestamp": "2027-01-15T07:58:00Z", "instance": "figlet-0", "text": "started"}
        ]
        self.result = httpx2.Response(200, text="HELLO", headers={"content-type": "text/plain"})

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if path not in self.errors:
            found = self._found(request, path)
            if found is not None:
                self.requests.append(request)
                return found
            return super().answer(request)
        self.requests.append(request)
        status, sentence = self.errors[path]
        return httpx2.Response(status, text=f"{sentence}\n")

    def sent(self, method: str, path: str) -> list[httpx2.Request]:
        """The requests that arrived for this method and path."""
        return [r for r in self.requests if (r.method, r.url.path) == (method, path)]

    def _found(self, request: httpx2.Request, path: str) -> httpx2.Response | None:
        query = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
        told: dict[str, Callable[[], Any]] = {
            "GET /federation/v1/whoami": lambda: self.whoami,
            "POST /federation/v1/can-i": lambda: self._decisions(json.loads(request.content)),
            "GET /federation/v1/documents": lambda: self.documents,
            "POST /federation/v1/explain": lambda: self.explanation,
            "GET /federation/v1/who-can": lambda: (
                self.role_gives if "role" in query else self.who_can
            ),
            "GET /federation/v1/audit": lambda: self._audit(query),
            "GET /system/namespaces": lambda: self.namespaces,
            "GET /system/functions": lambda: self._in(query.get("namespace", "")),
        }
        if answer := told.get(f"{request.method} {path}"):
            return httpx2.Response(200, json=answer())
        if path == "/system/logs":
            lines = "".join(json.dumps(line) + "\n" for line in self.lines)
            kind = {"content-type": "application/x-ndjson"}
            return httpx2.Response(200, text=lines, headers=kind)
        if path.startswith("/system/function/"):
            return self._one(query["namespace"], path.rpartition("/")[2])
        if path.startswith("/system/"):
            return httpx2.Response(202)
        return self.result if path.startswith("/function/") else None

    def _one(self, namespace: str, name: str) -> httpx2.Response:
        for function in self._in(namespace):
            if function["name"] == name:
                return httpx2.Response(200, json=function)
        return httpx2.Response(404, text="function not found\n")

    def _in(self, namespace: str) -> list[dict[str, Any]]:
        return [f for f in self.functions if f["namespace"] == namespace]

    def _decisions(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "access": [
                {
                    **access,
                    "allowed": access["action"] not in self.denied,
                    "policy": "guard" if access["action"] in self.denied else "dev-rw",
                    "sid": "s",
                    "effect": "Deny" if access["action"] in self.denied else "Allow",
                }
                for access in asked["access"]
            ]
        }

    def _audit(self, query: Mapping[str, str]) -> Mapping[str, Any]:
        chosen = [
            event
            for event in self.events
            if query.get("kind", "all") in {"all", "exchange" if event["path"] == "/oauth/token" else "gateway"}
            and (query.get("outcome", "all") != "granted" or event["response_code"] < 400)
            and (query.get("outcome", "all") != "refused" or event["response_code"] >= 400)
        ]  # fmt: skip
        return {
            "events": chosen,
            "next": None if "before" in query else self.next,
            "replica": "broker-0",
            "note": "This replica's trail; other replicas have their own.",
        }
