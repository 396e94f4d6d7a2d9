"""The documents of N Roles, and tokens of jobs that ten of them admit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from federation.demo.issuer import LocalIssuer

__all__ = ["BROKER_URL", "Jobs"]

BROKER_URL = "https://broker.example.test"
_REPOSITORIES = 10
"""From so many repositories the jobs come, however many Roles there are."""


class Jobs:
    """Jobs of an issuer whose keys are pinned, so that nothing is fetched."""

    def __init__(self) -> None:
        self._issuer = LocalIssuer("http://127.0.0.1:1")
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def documents(self, roles: int) -> str:
        """An issuer, a Policy and *roles* Roles, a third each by id, by pattern and by `sub`."""
        iss = self._issuer.iss("github")
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        issuer = {
            "iss": iss,
            "aud": [BROKER_URL],
            "provider": "github",
            "jwks": {"keys": [{**public, "kid": "bench", "alg": "RS256", "use": "sig"}]},
        }
        statement = {
            "sid": "deploy",
            "effect": "Allow",
            "action": ["Function:*"],
            "resource": ["dev:*"],
        }
        documents = [
            _document("JwtIssuer", "bench", issuer),
            _document("Policy", "deploy", {"statement": [statement]}),
            *(
                _document("Role", f"role-{n}", {"policy": ["deploy"], "condition": block})
                for n, block in enumerate(_conditions(iss, roles))
            ),
        ]
        return "\n---\n".join(map(json.dumps, documents))

    def requests(self, count: int) -> Iterator[bytes]:
        """*count* exchange requests, each with a token that was never used."""
        for number in range(count):
            token = jwt.encode(
                self._claims(number % _REPOSITORIES), self._key, "RS256", {"kid": "bench"}
            )
            body = urlencode(
                {
                    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                    "subject_token": token,
                    "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
                }
            )
            yield (
                "POST /oauth/token HTTP/1.1\r\nHost: broker.example.test\r\n"
                "Content-Type: application/x-www-form-urlencoded\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode("ascii")

    def _claims(self, repository: int) -> dict[str, object]:
        token = self._issuer.issue("github", "main", BROKER_URL)
        claims: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
        return claims | {
            "repository": f"org-{repository}/app-{repository}",
            "repository_id": str(5_000_000 + repository),
            "repository_owner": f"org-{repository}",
            "repository_owner_id": str(1_000_000 + repository),
            "sub": f"repo:org-{repository}/app-{repository}:ref:refs/heads/main",
        }


def _conditions(iss: str, roles: int) -> Iterator[dict[str, object]]:
    for n in range(roles):
        exact = {
            "jwt:iss": iss,
            "jwt:repository_owner_id": str(1_000_000 + n),
            "jwt:ref": "refs/heads/main",
        }
        match n % 3:
            case 0:
                yield {"StringEqual": {**exact, "jwt:repository_id": str(5_000_000 + n)}}
            case 1:
                yield {"StringEqual": exact, "StringLike": {"jwt:repository": f"org-{n}/*"}}
            case _:
                sub = f"repo:org-{n}/app-{n}:ref:refs/heads/main"
                yield {"StringEqual": {**exact, "jwt:sub": sub}}


def _document(kind: str, name: str, spec: object) -> dict[str, object]:
    return {
        "apiVersion": "iam.openfaas.com/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
