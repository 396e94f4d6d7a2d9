"""The documents of N Roles, and exchange requests of jobs that ten of them admit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import urlencode

import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from federation.demo.jobs import claims_of

BROKER_URL = "https://broker.example.test"
ISS = "http://127.0.0.1:1/github"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
BRANCH = "refs/heads/main"


def documents(roles: int, *, block: bool = False) -> str:
    """
    An issuer with pinned keys, a Policy, and *roles* Roles by id, by pattern and by `sub`.

    Each is a line of JSON, or *block* YAML as people write it, which takes longer to write.
    """
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
    key = {**public, "kid": "bench", "alg": "RS256", "use": "sig"}
    issuer = {"iss": ISS, "aud": [BROKER_URL], "provider": "github", "jwks": {"keys": [key]}}
    statement = {"sid": "s", "effect": "Allow", "action": ["Function:*"], "resource": ["dev:*"]}
    specs = [
        ("JwtIssuer", issuer),
        ("Policy", {"statement": [statement]}),
        *(("Role", {"policy": ["n1"], "condition": _condition(n)}) for n in range(roles)),
    ]
    written = [
        {
            "apiVersion": "iam.openfaas.com/v1",
            "kind": kind,
            "metadata": {"name": f"n{number}"},
            "spec": spec,
        }
        for number, (kind, spec) in enumerate(specs)
    ]
    if block:
        return yaml.safe_dump_all(written, sort_keys=False)
    return "\n---\n".join(map(json.dumps, written))


def _condition(n: int) -> dict[str, object]:
    exact = {"jwt:iss": ISS, "jwt:repository_owner_id": str(1_000_000 + n), "jwt:ref": BRANCH}
    match n % 3:
        case 0:
            return {"StringEqual": {**exact, "jwt:repository_id": str(5_000_000 + n)}}
        case 1:
            return {"StringEqual": exact, "StringLike": {"jwt:repository": f"org-{n}/*"}}
        case _:
            return {"StringEqual": {**exact, "jwt:sub": _subjects(n)}}


def _subjects(n: int) -> list[str]:
    """Both forms of the subject, as GitHub writes it without ids and with them."""
    ids = f"repo:org-{n}@{1_000_000 + n}/app@{5_000_000 + n}"
    return [f"repo:org-{n}/app:ref:{BRANCH}", f"{ids}:ref:{BRANCH}"]


def requests(count: int) -> Iterator[bytes]:
    """*count* exchange requests, each with a token that was never used."""
    for number in range(count):
        token = jwt.encode(_claims(number % 10), KEY, "RS256", {"kid": "bench"})
        body = urlencode(
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token": token,
                "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            }
        )
        yield (
            f"POST /oauth/token HTTP/1.1\r\nHost: {BROKER_URL[8:]}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode("ascii")


def _claims(n: int) -> dict[str, object]:
    claims = claims_of("github", "main", iss=ISS, audience=BROKER_URL, now=time.time())
    return claims | {
        "repository": f"org-{n}/app",
        "repository_id": str(5_000_000 + n),
        "repository_owner": f"org-{n}",
        "repository_owner_id": str(1_000_000 + n),
        "sub": f"repo:org-{n}/app:ref:{BRANCH}",
    }
