"""
Read the metadata of an OpenID provider strictly.

OpenID Connect Discovery 1.0 and RFC 8414 define the fields. Codes, secrets and refresh tokens are
sent to the endpoints that stand here, so the document must come from the authority that the person
named, must name that authority as issuer, and may name only https endpoints. http is taken from a
provider on this machine alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from federation.claims import shown
from federation.client import ClientError
from federation.client.http import require_secure_url
from federation.jose.strict_json import loads_object
from federation.sign_on.authority import DISCOVERY, base_of
from federation.sign_on.bounded import Bounded, client_of, unreachable

_MAX_URL_CHARS = 2048
_MAX_ITEMS = 200


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of one provider. An endpoint that it does not name is empty."""

    issuer: str
    """Exactly as it stands in `iss` of its tokens."""
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    device_authorization_endpoint: str = ""
    revocation_endpoint: str = ""
    end_session_endpoint: str = ""
    token_auth_methods: tuple[str, ...] = ("client_secret_basic",)
    """RFC 8414, section 2: this is the default where the provider names none."""
    response_modes: tuple[str, ...] = ("query", "fragment")
    names_itself: bool = False
    """True if its answers always have `iss` (RFC 9207)."""

    @property
    def is_keycloak(self) -> bool:
        """True if this is a realm of Keycloak, whose ID tokens say that they are ID tokens."""
        return self.token_endpoint == f"{self.issuer}/protocol/openid-connect/token"


async def discover(authority: str, transport: Bounded) -> Metadata:
    """
    Fetch the metadata of *authority* (OpenID Connect Discovery 1.0, section 4).

    Raises: ClientError.
    """
    require_secure_url(authority, "The authority")
    base = base_of(authority)
    url = base + DISCOVERY
    try:
        async with client_of(transport) as client:
            response = await client.get(url)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise unreachable(error, url) from error
    if response.status_code != httpx2.codes.OK:
        raise ClientError(
            f"{url} answered HTTP {response.status_code}, not with a provider's metadata.",
            "Check the authority: it is the provider's issuer URL, such as"
            " https://sso.example.com/realms/octo.",
        )
    try:
        document = loads_object(response.content)
    except ValueError:
        raise ClientError(
            f"{url} answered with something that is not JSON.", "Check the authority."
        ) from None
    return read(document, base)


def read(document: Mapping[str, object], base: str) -> Metadata:
    """
    Read the metadata in *document*, which was fetched below *base*.

    Raises: ClientError.
    """
    issuer = _issuer(document, base)
    return Metadata(
        issuer=issuer,
        authorization_endpoint=_endpoint(document, "authorization_endpoint", issuer, needed=True),
        token_endpoint=_endpoint(document, "token_endpoint", issuer, needed=True),
        jwks_uri=_endpoint(document, "jwks_uri", issuer, needed=True),
        device_authorization_endpoint=_endpoint(document, "device_authorization_endpoint", issuer),
        revocation_endpoint=_endpoint(document, "revocation_endpoint", issuer),
        end_session_endpoint=_endpoint(document, "end_session_endpoint", issuer),
        token_auth_methods=_words(document, "token_endpoint_auth_methods_supported")
        or ("client_secret_basic",),
        response_modes=_words(document, "response_modes_supported") or ("query", "fragment"),
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _issuer(document: Mapping[str, object], base: str) -> str:
    """
    Return `issuer`, which must be *base* but for slashes at the end.

    Discovery, section 4.3: a document that names another issuer would have the codes of one
    provider sent to another (mix-up). The final slash is cut off before the well-known path is
    appended, so it is not known here whether the issuer has one. Auth0's has.
    """
    issuer = document.get("issuer")
    if isinstance(issuer, str) and issuer.rstrip("/") == base:
        return issuer
    raise ClientError(
        f"{base}{DISCOVERY} names the issuer {shown(issuer)}, which is not the authority {base}.",
        "Give the authority exactly as the provider writes its issuer. With Microsoft Entra ID it"
        " contains the id of your tenant, not common or organizations.",
    )


def _endpoint(
    document: Mapping[str, object], name: str, issuer: str, *, needed: bool = False
) -> str:
    url = document.get(name)
    if url is None and not needed:
        return ""
    if not isinstance(url, str) or len(url) > _MAX_URL_CHARS or not url.isascii():
        raise ClientError(f"The metadata of {issuer} has no usable {name}.", _OPERATOR)
    require_secure_url(url, f"{name} of {issuer}")
    parts, own = httpx2.URL(url), httpx2.URL(issuer)
    if parts.scheme != "https" and own.scheme == "https":
        # A provider elsewhere would have a code or a secret sent to a program on this machine.
        raise ClientError(f"{name} of {issuer} is {shown(url)}, which is not https.", _OPERATOR)
    if parts.userinfo or parts.fragment:
        # RFC 6749, sections 3.1 and 3.2: an endpoint has no fragment.
        raise ClientError(f"{name} of {issuer} has a user or a fragment.", _OPERATOR)
    return url


_OPERATOR = "The operator of the provider can mend its metadata."


def _words(document: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Return a list of strings, empty if it is absent. What is no string is passed over."""
    given = document.get(name)
    words = given[:_MAX_ITEMS] if isinstance(given, list) else []
    return tuple(word for word in words if isinstance(word, str))
