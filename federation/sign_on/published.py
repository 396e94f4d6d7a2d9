"""
The sign-in settings that a gateway publishes (RFC 9728).

A gateway that lies could name the provider and the client of another gateway, and present the ID
token there that a person signed in for (mix-up; RFC 9700, section 4.4, has it for authorization
servers). So what a gateway published is told before the browser opens, and `require_no_mix_up`
stops where another gateway of this person has the same client. Nobody's client secret is sent to a
provider that a gateway named.

It could also name a provider of its own, which sends the browser on to that of another gateway.
`require_no_relay` stops where the code of that one would be taken for the hostile provider's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

import httpx2

from federation.client import ClientError
from federation.client.connection import ANSWER_SECONDS
from federation.client.faas_cli import gateway_name
from federation.client.http import Sender, require_secure_url, server_of
from federation.jose.strict_json import loads_object
from federation.sign_on.bounded import Bounded
from federation.sign_on.metadata import Metadata, discover
from federation.sign_on.sessions import Sessions, SignInSettings
from federation.text import printable

WELL_KNOWN = "/.well-known/oauth-protected-resource"
_DEFAULT_SCOPES = "openid profile email"
_MAX_CHARS = 512
_CLIENT_ID = re.compile(r"[!-~]+(?: [!-~]+)*")
_SCOPES = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*")  # RFC 6749, section 3.3
_OTHER_OPTIONS = (
    ("--scope", "scopes"),
    ("--grant", "grant"),
    ("--port", "port"),
    ("--redirect-host", "redirect_host"),
)
"""Options that are forgotten when a person gives the provider and the client anew."""
_GIVE = "Give --authority and --client-id. The operator of the gateway knows them."


def published_settings(gateway: str, sender: Sender) -> SignInSettings:
    """
    Return how people sign in for *gateway*, as the gateway says.

    Raises: ClientError if it says nothing, or what cannot be used.
    """
    response = sender.send("GET", f"{gateway}{WELL_KNOWN}", headers={"Accept": "application/json"})
    if response.status_code != httpx2.codes.OK:
        raise ClientError(
            f"{server_of(response.url)} does not publish how people sign in"
            f" (HTTP {response.status_code} for {WELL_KNOWN}).",
            _GIVE,
        )
    try:
        document = loads_object(response.content)
    except ValueError:
        raise ClientError(
            f"{server_of(response.url)} answered, but not as a broker does.",
            f"Check the gateway's URL. {_GIVE}",
        ) from None
    return _read(document, gateway)


def require_reachable(gateway: str, sender: Sender) -> None:
    """
    Check that *gateway* answers, whatever it says: a broker need not publish how people sign in.

    Raises: ClientError.
    """
    response = sender.send("GET", f"{gateway}{WELL_KNOWN}", headers={"Accept": "application/json"})
    if response.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
        raise ClientError(
            f"{server_of(response.url)} answered HTTP {response.status_code}: it is down.",
            "Try again in a minute. Nobody was asked to sign in.",
        )


def _read(document: Mapping[str, object], gateway: str) -> SignInSettings:
    resource = document.get("resource")
    if not isinstance(resource, str) or gateway_name(resource) != gateway:
        # RFC 9728, section 3.3: else one gateway could speak for another.
        raise ClientError(
            f"What {gateway} publishes is about {_told(resource)}, and not about itself.",
            "Give the gateway's public URL, as its operator has set it (issuer-url).",
        )
    authority = _authority(document.get("authorization_servers"), gateway)
    client_id = document.get("federation_client_id")
    if not _is_like(_CLIENT_ID, client_id):
        raise ClientError(f"{gateway} publishes no usable client id.", _GIVE)
    scopes = document.get("federation_scopes", _DEFAULT_SCOPES)
    if not _is_like(_SCOPES, scopes):
        raise ClientError(f"{gateway} publishes scopes that cannot be used.", _GIVE)
    return SignInSettings(authority, str(client_id), str(scopes), published=True)


def _authority(servers: object, gateway: str) -> str:
    match servers:
        case [str(authority)] if len(authority) <= _MAX_CHARS:
            pass
        case [_, _, *_]:
            raise ClientError(f"People sign in for {gateway} at several providers.", _GIVE)
        case _:
            raise ClientError(f"{gateway} publishes no provider.", _GIVE)
    require_secure_url(authority, f"The provider that {gateway} publishes,")
    parts = httpx2.URL(authority)
    if not authority.isascii() or parts.userinfo or parts.query or parts.fragment:
        # RFC 8414, section 2: an issuer has neither query nor fragment. Before or behind a host
        # that a person knows, or with a letter that looks like another, they mislead who reads it.
        raise ClientError(f"{gateway} publishes an address that is no provider's.", _GIVE)
    if parts.scheme != "https" and httpx2.URL(gateway).scheme == "https":
        # A gateway elsewhere has no business with what runs on this machine.
        raise ClientError(f"{gateway} publishes a provider on this machine.", _GIVE)
    return authority


def require_no_mix_up(settings: SignInSettings, gateway: str, sessions: Sessions) -> None:
    """
    Check that no other gateway of this person has the same client, if a gateway published it.

    An ID token for that client is good at both gateways, so each of them could use it at the other.
    Raises: ClientError.
    """
    if not settings.published:
        return
    if others := sessions.others_with(settings, gateway):
        raise ClientError(
            f"{gateway} publishes the provider and client that you sign in with for"
            f" {_listed(others)}. If one of them is not honest, it could act as you at the other.",
            "If both gateways are yours, say so by giving the settings yourself"
            f"{_once(settings, gateway)}",
        )


async def require_no_relay(
    settings: SignInSettings,
    gateway: str,
    published: Metadata,
    others: Mapping[str, str],
    http: httpx2.AsyncClient,
) -> None:
    """
    Check that no answer of another provider of this person passes for one of *published*.

    A hostile provider can send the browser on to another one, with the state of this sign-in. The
    person is signed in there, and its code would be sent, with the code verifier, to the hostile
    one (mix-up; RFC 9700, section 4.4). An answer that names its provider (RFC 9207) is never taken
    for another's, so it is enough if one of the two names itself. *others* has a gateway for each
    other authority. Raises: ClientError.
    """
    if published.names_itself:
        return
    for authority, other in others.items():
        if not await _names_itself(authority, http):
            raise ClientError(
                f"The provider {published.issuer}, which the gateway named, could get the code of"
                f" {authority}, by which you sign in to {other}. The answers of the first do not name"
                " their sender (RFC 9207), and those of the second do not either, or it could not be"
                " asked.",
                f"Many honest providers do not name themselves. If you know that people sign in for {gateway} at"
                f" {published.issuer}, say so by giving it yourself{_once(settings, gateway)}",
            )


async def _names_itself(authority: str, http: httpx2.AsyncClient) -> bool:
    try:
        metadata = await discover(authority, Bounded(http, ANSWER_SECONDS))
    except ClientError:
        return False  # it is away at this moment, and may be there when the browser comes
    return metadata.names_itself


def _once(settings: SignInSettings, gateway: str) -> str:
    """Return the command that gives *settings*, quoted: a gateway that lies chose some of them."""
    words = ["--gateway", gateway, "--authority", settings.authority]
    words += ["--client-id", settings.client_id]
    usual = SignInSettings(settings.authority, settings.client_id)
    for option, name in _OTHER_OPTIONS:
        if (value := getattr(settings, name)) != getattr(usual, name):
            words += [option, str(value)]
    for role in settings.roles:
        words += ["--role", role]
    return f". That is remembered, so once is enough:\n\n  federation login {shlex.join(words)}"


def _listed(gateways: Sequence[str]) -> str:
    return " and ".join(gateways[:3]) + (" and others" if len(gateways) > 3 else "")


def _is_like(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_CHARS and bool(pattern.fullmatch(value))


def _told(value: object) -> str:
    return printable(value, 200) if isinstance(value, str) else "nothing"
