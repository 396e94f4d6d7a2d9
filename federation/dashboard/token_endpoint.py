"""
The broker's token endpoint, as the dashboard uses it: trade a person's ID token, and revoke.

The broker decides who may do what. Its sentence and its request id are shown to the person as they
are, so that they can tell their operator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType

import httpx2
import structlog

from federation.client import ClientError
from federation.client.http import json_of
from federation.dashboard.sessions import Granted
from federation.sign_on.bounded import Bounded, client_of
from federation.text import printable

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
_SECONDS = 15.0
_REVOKE_SECONDS = 5.0

_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "no_role_admits": "You signed in, but no Role of this gateway admits you. Ask its operator"
        " for one. To sign in as somebody else, sign out at the provider first.",
        "untrusted_issuer": "The operator adds a JwtIssuer with exactly the issuer of this"
        " provider.",
        "wrong_audience": "The operator lists the dashboard's client id under clients of the"
        " JwtIssuer.",
        "wrong_party": "The operator lists the dashboard's client id under clients of the"
        " JwtIssuer.",
        "wrong_token_type": "The operator compares the provider of the JwtIssuer with the tokens"
        " of this provider.",
        "not_a_ci_token": "The operator writes clients into the JwtIssuer, so that people may use"
        " it.",
        "expired": "The clocks of the provider and the broker differ. The operator can compare"
        " them.",
        "not_yet_valid": "The clocks of the provider and the broker differ. The operator can"
        " compare them.",
        "already_used": "Sign in again. If it comes back, the operator sets subjectTokenUse: many.",
        "too_many_failures": "Wait a minute, then sign in again.",
        "too_many_exchanges": "Wait a minute, then sign in again.",
    }
)
_LATER = "Sign in again later."
_OTHER = "The operator of the gateway can say more."


class Refused(ClientError):
    """The broker's answer to an exchange was no. *reason* is its slug."""

    def __init__(
        self, reason: str, problem: str, advice: str, request_id: str, *, temporary: bool
    ) -> None:
        super().__init__(problem, advice)
        self.reason = reason
        self.request_id = request_id
        self.temporary = temporary
        """True if the same exchange may succeed later."""


class NoAnswer(ClientError):
    """The broker could not be asked, or could not decide. The same may succeed later."""


class BrokerTokens:
    """The token endpoint of the broker at *url*."""

    def __init__(self, url: str, http: httpx2.AsyncClient, clock: Callable[[], float]) -> None:
        self._url = url
        self._http = client_of(Bounded(http, _SECONDS))
        self._clock = clock

    async def exchange(self, id_token: str, caller: str = "") -> Granted:
        """
        The access token for a verified *id_token* (RFC 8693).

        *caller* is the address of the person, so that the broker can limit failures by address.
        Raises: Refused; NoAnswer.
        """
        form = {
            "grant_type": _GRANT_TYPE,
            "subject_token": id_token,
            "subject_token_type": _ID_TOKEN,
        }
        asked = self._clock()
        status, answer = await self._post("/oauth/token", form, caller, _SECONDS)
        match answer:
            case {"access_token": str(token), "expires_in": int(seconds)} if (
                status == 200 and token
            ):
                return Granted(token, asked, asked + seconds)
            case {"error_description": str(said), "reason": str(reason), "request_id": str(rid)}:
                advice = _ADVICE.get(reason, _LATER if status >= 429 else _OTHER)
                raise Refused(
                    printable(reason, 64),
                    printable(said, 2000),
                    advice,
                    printable(rid, 128),
                    temporary=status >= 429,
                )
        raise _no_broker(f"HTTP {status}")

    async def revoke(self, token: str) -> None:
        """End an access token (RFC 7009). What cannot be revoked is logged, and expires soon."""
        try:
            status, _ = await self._post("/oauth/revoke", {"token": token}, "", _REVOKE_SECONDS)
            problem = "" if status == 200 else f"HTTP {status}"
        except ClientError as error:
            problem = error.problem
        if problem:
            log = structlog.get_logger("federation.dashboard")
            log.warning("an access token was not revoked at the broker", problem=problem)

    async def _post(
        self, path: str, form: Mapping[str, str], caller: str, seconds: float
    ) -> tuple[int, object]:
        headers = {"X-Forwarded-For": caller} if caller else {}
        try:
            async with asyncio.timeout(seconds):
                answer = await self._http.post(self._url + path, data=form, headers=headers)
        except (httpx2.HTTPError, TimeoutError) as error:
            # The text of an error may quote headers or the URL.
            raise _no_broker(type(error).__name__) from error
        return answer.status_code, json_of(answer)


def _no_broker(why: str) -> NoAnswer:
    return NoAnswer(
        f"The broker gave no answer that can be used ({why}).",
        "Try again in a minute. If it stays so, tell the operator of the dashboard.",
    )
