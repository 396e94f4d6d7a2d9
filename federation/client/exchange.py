"""Exchange a subject token for an access token at a broker (RFC 8693)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx2

from federation.client import ClientError
from federation.client.advice import advice_for_person, advice_on
from federation.client.docs import more_on
from federation.client.http import Sender, json_of, require_secure_url, server_of
from federation.client.subject import SubjectToken
from federation.errors import Refusal
from federation.jose import jws
from federation.text import printable

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_LONGEST_SECONDS = 366 * 24 * 3600
_MAX_TOKEN_CHARS = 64 * 1024
"""No server takes such a header, and a session with a longer one could not be kept."""
_TOKEN = re.compile(r"[!-~]+")
_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token and its lifetime."""

    token: str = field(repr=False)
    expires_in_seconds: int

    def listed(self, claim: str) -> list[str]:
        """Return the texts in *claim*, such as `role`, as the token says them. It is not verified."""
        try:
            value = jws.parse(self.token).claims.get(claim)
        except Refusal:
            return []
        return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


class BrokerRefused(ClientError):
    """A refusal of the broker. *reason* is a slug of docs/refusals.md."""

    def __init__(
        self,
        reason: str,
        problem: str,
        advice: str,
        *,
        request_id: str,
        claims: Mapping[str, object],
    ) -> None:
        super().__init__(problem, advice)
        self.reason = reason
        self.request_id = request_id
        self.claims = claims
        """Those of the subject token, without what is about a person."""


def exchange(
    url: str,
    token: str,
    sender: Sender,
    *,
    audience: str | None = "",
    roles: Sequence[str] = (),
    functions: Sequence[str] = (),
    person: bool = False,
) -> AccessToken:
    """
    Exchange *token* at the broker at *url*.

    The token must be issued for *audience*, by default the broker's URL, or it is not sent. None
    stands for any: only a person who has named both the provider and the gateway may say so. With
    *functions* (`<namespace>:<function>`), ask for a function token for them instead of an access
    token. *person* has the advice on a refusal speak to a person, not about a job. A refusal is not
    retried.
    Raises: ClientError; BrokerRefused with the broker's reason.
    """
    require_secure_url(url, "The broker's URL")
    subject = SubjectToken.read(token)
    sender.trace(f"ID token: {subject.summary}")
    if audience is not None:
        subject.require_audience(audience or url.rstrip("/"))
    form: dict[str, str | list[str]] = {
        "grant_type": _GRANT_TYPE,
        "subject_token": subject.text,
        "subject_token_type": _ID_TOKEN,
    }
    if roles:
        form["role"] = list(roles)
    if functions:
        form |= {"scope": "function", "audience": list(functions)}
    response = sender.send("POST", f"{url.rstrip('/')}/oauth/token", form=form)
    if response.status_code != 200:
        raise _refused(response, subject, person=person)
    match json_of(response):
        case {"access_token": str(access_token), "expires_in": int(seconds)} if (
            _TOKEN.fullmatch(access_token)  # it is printed, and sent in headers
            and len(access_token) <= _MAX_TOKEN_CHARS
            and not isinstance(seconds, bool)
            and 0 < seconds <= _LONGEST_SECONDS
        ):
            return AccessToken(access_token, seconds)
        case _:
            raise ClientError(f"{url} answered, but not as a broker does.", "Check the URL.")


def _more(reason: str) -> str:
    where = more_on(reason)
    return f"\n\nWhat {printable(reason, 64)} means: {where}" if where else ""


def _refused(response: httpx2.Response, subject: SubjectToken, *, person: bool) -> ClientError:
    server = server_of(response.url)
    match json_of(response):
        case {"error_description": str(description), "reason": str(reason), "request_id": str(rid)}:
            temporary = response.status_code >= 500
            advise = advice_for_person if person else advice_on
            advice = advise(reason, subject, temporary=temporary)
            return BrokerRefused(
                reason,
                f"The broker refused ({printable(reason, 64)}): {printable(description, 2000)}",
                f"{advice}\n\nThe operator finds the details under request id"
                f" {printable(rid, 128)} in the broker's log, and in its audit trail unless the"
                " token is invalid or of an unknown issuer:\n\n"
                f"  federation audit show {shlex.quote(printable(rid, 128))}"
                f"{_more(reason)}",
                request_id=rid,
                claims=subject.told(personal=person),
            )
        case _ if response.is_redirect:
            return ClientError(
                f"{server} answered HTTP {response.status_code}, a redirect, which is not followed"
                " with a token.",
                "Give the address that it leads to as URL.",
            )
        case _:
            return ClientError(
                f"{server} answered HTTP {response.status_code}, not as a broker does.",
                "Check the URL.",
            )
