"""
A local CI issuer, which signs ID tokens with the claims of GitHub's and GitLab's.

A job asks for its token as on a GitHub runner: it appends `&audience=` to the request URL, sends
the request token as a bearer token and reads `value`. The URL names the job, as in
`…/github/token?job=main`. GitLab has no such URL. Here it has one, so that tests get both kinds
of token in the same way.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from federation.demo.jobs import JOBS, claims_of


class LocalIssuer:
    """Issues tokens for invented jobs. Its `app` must be served at *base_url*."""

    def __init__(self, base_url: str, clock: Callable[[], float] = time.time) -> None:
        self.base_url = base_url
        self.request_token = secrets.token_urlsafe(24)
        self.jobs = {provider: dict(jobs) for provider, jobs in JOBS.items()}
        """The claims of each job, by provider and name. Tests add jobs of their own."""
        self._clock = clock
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._kid = secrets.token_hex(8)

    @property
    def app(self) -> Starlette:
        """The issuer as an ASGI application."""
        return Starlette(
            routes=[
                Route("/{provider}/.well-known/openid-configuration", self._metadata),
                Route("/{provider}/jwks", self._jwks),
                Route("/{provider}/token", self._token),
            ]
        )

    def iss(self, provider: str) -> str:
        """The `iss` of the tokens of *provider*, `github` or `gitlab`."""
        return f"{self.base_url}/{provider}"

    def environment(self, provider: str, job: str) -> dict[str, str]:
        """The variables that a runner sets for a job with the `id-token: write` permission."""
        query = urlencode({"api-version": "2.0", "job": job})
        return {
            "GITHUB_ACTIONS": "true",
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.iss(provider)}/token?{query}",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.request_token,
        }

    def issue(self, provider: str, job: str, audience: str | list[str]) -> str:
        """A new signed token for *job*."""
        iss, now = self.iss(provider), self._clock()
        claims = claims_of(provider, job, iss=iss, audience=audience, now=now, jobs=self.jobs)
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._kid})

    async def _metadata(self, request: Request) -> Response:
        iss = self.iss(request.path_params["provider"])
        return JSONResponse(
            {
                "issuer": iss,
                "jwks_uri": f"{iss}/jwks",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _jwks(self, _request: Request) -> Response:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
        return JSONResponse({"keys": [{**public, "kid": self._kid, "alg": "RS256", "use": "sig"}]})

    async def _token(self, request: Request) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given, self.request_token):
            return JSONResponse({"message": "the request token is wrong"}, 401)
        provider, job = request.path_params["provider"], request.query_params.get("job", "main")
        jobs = self.jobs.get(provider, {})
        if job not in jobs:
            known = f"its jobs are {', '.join(jobs)}" if jobs else "ask for github or gitlab"
            return JSONResponse({"message": f"the demo has no such job; {known}"}, 404)
        audience = request.query_params.get("audience") or "https://github.com/octo-org"
        token = self.issue(provider, job, audience)
        if request.headers.get("accept") == "text/plain":  # for a shell, which reads no JSON
            return PlainTextResponse(token)
        return JSONResponse({"count": len(token), "value": token})
