"""Requests to the API for people, to a broker within the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2

from tests.harness.gateway import Front

__all__ = ["AUDIT", "CAN_I", "DOCUMENTS", "EXPLAIN", "WHOAMI", "WHO_CAN", "call", "refused"]

WHOAMI = "/federation/v1/whoami"
CAN_I = "/federation/v1/can-i"
DOCUMENTS = "/federation/v1/documents"
EXPLAIN = "/federation/v1/explain"
WHO_CAN = "/federation/v1/who-can"
AUDIT = "/federation/v1/audit"

METHODS: Mapping[str, str] = {
    WHOAMI: "GET",
    CAN_I: "POST",
    DOCUMENTS: "GET",
    EXPLAIN: "POST",
    WHO_CAN: "GET",
    AUDIT: "GET",
}
QUERIES: Mapping[str, str] = {WHO_CAN: "?action=Function:Create&resource=dev:figlet"}
BODIES: Mapping[str, Any] = {
    CAN_I: {"access": [{"action": "Function:List", "resource": "dev:*"}]},
    EXPLAIN: {"claims": {"iss": "https://token.actions.githubusercontent.com", "sub": "s"}},
}


def call(
    front: Front, path: str, token: str | None, *, query: str | None = None, **request: Any
) -> httpx2.Response:
    """The answer to a good request for *path*, with *token* and changes to the *request*."""
    if path in BODIES and not {"json", "content", "data"} & request.keys():
        request["json"] = BODIES[path]
    query = QUERIES.get(path, "") if query is None else query
    return front.call(METHODS[path], path + query, token, **request)


def refused(answer: httpx2.Response, status: int) -> Mapping[str, Any]:
    """The JSON error of *answer*, which has *status*."""
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    told: Mapping[str, Any] = answer.json()
    assert told["request_id"] == answer.headers["x-request-id"]
    return told
