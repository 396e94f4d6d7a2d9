"""The documents of N Roles, and exchange requests of jobs that ten of these Roles admit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import yaml

from federation.demo.jobs import claims_of
from tests.harness.broker import AUDIENCE
from tests.harness.documents import as_text, document
from tests.harness.issuer import FakeIssuer, FakeKey
from tests.harness.load import exchange_request

ISSUER = FakeIssuer("http://127.0.0.1:1/github", FakeKey("bench"))
BRANCH = "refs/heads/main"


def documents(roles: int, *, block: bool = False) -> str:
    """
    An issuer with pinned keys, a Policy, and *roles* Roles by id, by pattern and by `sub`.

    Each is a line of JSON. With *block* they are YAML as people write it, which takes longer to
    read.
    """
    trusted = {"iss": ISSUER.iss, "aud": [AUDIENCE], "provider": "github", "jwks": ISSUER.jwks()}
    statement = {"sid": "s", "effect": "Allow", "action": ["Function:*"], "resource": ["dev:*"]}
    specs: list[tuple[str, Mapping[str, object]]] = [
        ("JwtIssuer", trusted),
        ("Policy", {"statement": [statement]}),
        *(("Role", {"policy": ["n1"], "condition": _condition(n)}) for n in range(roles)),
    ]
    written = [document(kind, f"n{n}", spec) for n, (kind, spec) in enumerate(specs)]
    return yaml.safe_dump_all(written, sort_keys=False) if block else as_text(*written)


def _condition(n: int) -> dict[str, object]:
    exact = {
        "jwt:iss": ISSUER.iss,
        "jwt:repository_owner_id": str(1_000_000 + n),
        "jwt:ref": BRANCH,
    }
    match n % 3:
        case 0:
            return {"StringEqual": {**exact, "jwt:repository_id": str(5_000_000 + n)}}
        case 1:
            return {"StringEqual": exact, "StringLike": {"jwt:repository": f"org-{n}/*"}}
        case _:
            return {"StringEqual": {**exact, "jwt:sub": _subjects(n)}}


def _subjects(n: int) -> list[str]:
    """The two forms of `sub` at GitHub, without ids and with them."""
    ids = f"repo:org-{n}@{1_000_000 + n}/app@{5_000_000 + n}"
    return [f"repo:org-{n}/app:ref:{BRANCH}", f"{ids}:ref:{BRANCH}"]


def requests(count: int) -> Iterator[bytes]:
    """*count* exchange requests, each with a fresh token."""
    return (exchange_request(token(number % 10)) for number in range(count))


def token(n: int) -> str:
    """A fresh token of the job that the Role *n* admits."""
    return ISSUER.token(claims(n))


def claims(n: int) -> dict[str, object]:
    """The claims of such a token."""
    sample = claims_of("github", "main", iss=ISSUER.iss, audience=AUDIENCE, now=time.time())
    return sample | {
        "repository": f"org-{n}/app",
        "repository_id": str(5_000_000 + n),
        "repository_owner": f"org-{n}",
        "repository_owner_id": str(1_000_000 + n),
        "sub": f"repo:org-{n}/app:ref:{BRANCH}",
    }
