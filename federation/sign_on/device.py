"""
Sign in on another device (RFC 8628), where this one has no browser.

The person opens the provider's page elsewhere and enters a short code. Meanwhile the token
endpoint is asked again and again, no more often than it allows, until the code expires.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import httpx2

from federation.client import ClientError
from federation.client.http import require_secure_url
from federation.sign_on.oauth_errors import ProviderRefused, refused_answer
from federation.sign_on.pending import fresh_secret
from federation.sign_on.requests import Endpoints
from federation.sign_on.tokens import Answered

_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
_DEFAULT_INTERVAL_SECONDS = 5.0
_LONGEST_INTERVAL_SECONDS = 60.0
_SLOW_DOWN_SECONDS = 5.0
"""RFC 8628, section 3.5: each `slow_down` makes the interval so much longer."""
_LONGEST_SECONDS = 3600.0
_MAX_URL_CHARS = 2048
_USER_CODE = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")
"""Printable ASCII on one line: it is shown on a terminal."""


@dataclass(frozen=True, slots=True)
class DeviceSignIn:
    """A sign-in on another device (RFC 8628)."""

    user_code: str
    verification_uri: str
    verification_uri_complete: str
    """With the code in it, as for a QR code; empty if the provider gives none."""
    device_code: str = field(repr=False)
    verifier: str = field(repr=False)
    expires_in_seconds: float
    interval_seconds: float


async def begin(endpoints: Endpoints) -> DeviceSignIn:
    """Begin a sign-in on another device. Raises: ClientError."""
    url = endpoints.metadata.device_authorization_endpoint
    if not url:
        raise ClientError(
            f"{endpoints.metadata.issuer} has no sign-in on another device (device flow).",
            "Sign in with a browser, or have the operator of the provider enable it.",
        )
    verifier = fresh_secret()
    # RFC 8628 does not speak of PKCE. Providers that know it here (Keycloak) may demand it, and
    # the others pass over it.
    challenge = endpoints.challenge(verifier)
    answer = await endpoints.begin_device(
        url, code_challenge=challenge, code_challenge_method="S256"
    )
    return _read(answer, verifier, endpoints.metadata.issuer)


async def finish(
    endpoints: Endpoints,
    sign_in: DeviceSignIn,
    clock: Callable[[], float],
    pause: Callable[[float], Awaitable[None]],
) -> Answered:
    """
    Ask for the tokens until the person has signed in on the other device.

    Raises: ProviderRefused with `access_denied` or `expired_token`, among others; ClientError.
    """
    interval, ends = sign_in.interval_seconds, clock() + sign_in.expires_in_seconds
    while clock() + interval < ends:
        await pause(interval)
        try:
            return await endpoints.tokens(
                _GRANT_TYPE, device_code=sign_in.device_code, code_verifier=sign_in.verifier
            )
        except ProviderRefused as refused:
            if refused.error == "slow_down":
                interval += _SLOW_DOWN_SECONDS
            elif refused.error != "authorization_pending":
                raise
        except ClientError as error:
            if not isinstance(error.__cause__, httpx2.TransportError):
                raise
            interval *= 2  # section 3.5: back off exponentially after a timeout
    raise refused_answer("expired_token", "", endpoints.metadata.issuer)


def _read(answer: Mapping[str, object], verifier: str, issuer: str) -> DeviceSignIn:
    """Read the answer (RFC 8628, section 3.2). Raises: ClientError."""
    match answer:
        case {"device_code": str(code), "user_code": str(shown), "verification_uri": str(uri)} if (
            code and _USER_CODE.fullmatch(shown)
        ):
            return DeviceSignIn(
                user_code=shown,
                verification_uri=_page(uri, issuer),
                verification_uri_complete=_page_with_code(answer, issuer),
                device_code=code,
                verifier=verifier,
                expires_in_seconds=min(_seconds(answer, "expires_in", 300.0), _LONGEST_SECONDS),
                interval_seconds=min(
                    max(_seconds(answer, "interval", _DEFAULT_INTERVAL_SECONDS), 1.0),
                    _LONGEST_INTERVAL_SECONDS,
                ),
            )
    raise ClientError(
        f"{issuer} began a sign-in on another device, but gave no usable code.",
        "The operator of the provider can say more.",
    )


def _page(uri: str, issuer: str) -> str:
    """Return *uri*, which a person is told to open and to sign in at. Raises: ClientError."""
    require_secure_url(uri, f"The sign-in page of {issuer}")
    if len(uri) > _MAX_URL_CHARS or not uri.isascii() or not uri.isprintable() or " " in uri:
        raise ClientError(f"The sign-in page of {issuer} has no usable address.")
    return uri


def _page_with_code(answer: Mapping[str, object], issuer: str) -> str:
    uri = answer.get("verification_uri_complete")
    return _page(uri, issuer) if isinstance(uri, str) and uri else ""


def _seconds(answer: Mapping[str, object], name: str, default: float) -> float:
    value = answer.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return float(value)
    return default
