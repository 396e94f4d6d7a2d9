"""Exchange a subject token for an access token at a broker (RFC 8693)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2

from federation.client import ClientError
from federation.client.http import Sender, json_of, require_secure_url

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token and its lifetime."""

    token: str = field(repr=False)
    expires_in_seconds: int


def exchange(
    url: str,
    token: str,
    sender: Sender,
    *,
    roles: Sequence[str] = (),
    functions: Sequence[str] = (),
) -> AccessToken:
    """
    Exchange *token* at the broker at *url*.

    With *functions* (`<namespace>:<function>`), ask for a function token for them instead of an
    access token. A refusal is not retried.
    Raises: ClientError, with the broker's reason if it refused.
    """
    require_secure_url(url, "The broker's URL")
    form: dict[str, str | list[str]] = {
        "grant_type": _GRANT_TYPE,
        "subject_token": token,
        "subject_token_type": _ID_TOKEN,
    }
    if roles:
        form["role"] = list(roles)
    if functions:
        form |= {"scope": "function", "audience": list(functions)}
    response = sender.send("POST", f"{url.rstrip('/')}/oauth/token", form=form)
    if response.status_code != 200:
        raise _refused(response)
    match json_of(response):
        case {"access_token": str(access_token), "expires_in": int(seconds)} if access_token:
            return AccessToken(access_token, seconds)
        case _:
            raise ClientError(f"{url} answered, but not as a broker does.", "Check the URL.")


def _refused(response: httpx2.Response) -> ClientError:
    match json_of(response):
        case {"error_description": str(description), "reason": str(reason), "request_id": str(rid)}:
            return ClientError(
                f"The broker refused ({reason}): {description}",
                f"Request id {rid}: the broker's log and audit trail have the details under it."
                f" docs/refusals.md says what to do about {reason}.",
            )
        case _:
            return ClientError(
                f"{response.url.host} answered HTTP {response.status_code}, not as a broker does.",
                "Check the URL.",
            )
