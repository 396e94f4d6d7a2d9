"""
The headers of a caller that a function does not get, in every mode.

A function is another program, often another team's. With an access token of this broker it could
act as its caller. With `X-Callback-Url` on an asynchronous call, a caller could have the gateway
post to any function and to any address that the gateway reaches.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from federation.gateway.headers import Headers, undisguised
from federation.gateway.routes import Call, Kind
from federation.jose.strict_json import loads_object

_CALLBACK = b"x-callback-url"
# Whatever stands between its scheme and its path is the host, for every parser of URLs.
_URL = re.compile(
    rb"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    rb"(?:/[!-\[\]-~]*)?"
)
_PORTS = {"http": "80", "https": "443"}
_BASIC = re.compile(rb"\s*basic\s+(.*)", re.IGNORECASE | re.DOTALL)
# The second of three parts that dots divide. It is compact JSON, so it always begins like this.
# A token of ours names its issuer and more, so its payload is longer than this.
_PAYLOAD = re.compile(rb"(?<=\.)eyJ[A-Za-z0-9_-]{40,}(?=\.)")
_MOST_PAYLOADS = 16
"""So many are parsed for one request. If it holds more, none of their headers passes."""
_TOKEN_BYTES = 86
"""The signature alone of a token of ours takes so many."""


@dataclass(frozen=True, slots=True)
class FunctionHeaders:
    """Chooses the headers that pass to a function."""

    issuer_url: str
    """The broker's own `iss`."""
    callback_hosts: Collection[str]
    """Lower-case `host` or `host:port`. Without a port, that of the URL's scheme is meant."""

    def passing(self, headers: Headers, call: Call) -> Headers:
        """*headers* without tokens of this broker, and without a callback to an unlisted host."""
        if call.kind is Kind.ASYNC_FUNCTION:
            headers = self._with_listed_callback(headers)
        found = [_payloads(value) for _, value in headers]
        too_many = sum(map(len, found)) > _MOST_PAYLOADS
        return [
            header
            for header, payloads in zip(headers, found, strict=True)
            if not payloads or not (too_many or self._are_own(payloads, call))
        ]

    def _with_listed_callback(self, headers: Headers) -> Headers:
        callbacks = [value for name, value in headers if undisguised(name.lower()) == _CALLBACK]
        # Of two headers, the gateway may take another one than we looked at.
        if len(callbacks) == 1 and self._may_call_back(callbacks[0]):
            return headers
        return [(name, value) for name, value in headers if undisguised(name.lower()) != _CALLBACK]

    def _may_call_back(self, url: bytes) -> bool:
        found = _URL.fullmatch(url.strip())
        if found is None:
            return False
        scheme, host, port = (str(part or b"", "ascii").lower() for part in found.groups())
        own = _PORTS[scheme]
        listed = f"{host}:{port or own}" in self.callback_hosts
        return listed or (port in {"", own} and host in self.callback_hosts)

    def _are_own(self, payloads: Iterable[bytes], call: Call) -> bool:
        """True if one of *payloads* is that of a token of this broker which must not pass."""
        return any(
            claims.get("iss") == self.issuer_url and not _is_only_for(call, claims)
            for claims in map(_unverified_claims, payloads)
        )


def _is_only_for(call: Call, unverified_claims: Mapping[str, object]) -> bool:
    """
    True for a function token that opens the function of *call* and nothing else.

    Some functions check such a token themselves (`jwt_auth`). The broker takes it for nothing else.
    """
    resource = call.access.resource.lower()
    match unverified_claims.get("function"):
        case {"permissions": [str(only)], "audience": [str(audience)]}:
            return only.lower() == audience.lower() == resource
        case _:
            return False


def _payloads(value: bytes) -> Sequence[bytes]:
    """The payloads of every JWT within a header's *value*, or in its Basic credentials."""
    if len(value) < _TOKEN_BYTES:
        return ()
    basic = _BASIC.match(value)
    return [*_PAYLOAD.findall(value), *(_PAYLOAD.findall(_decoded(basic[1])) if basic else ())]


def _unverified_claims(payload: bytes) -> Mapping[str, object]:
    try:
        return loads_object(_decoded(payload))
    except ValueError:
        return {}


def _decoded(text: bytes) -> bytes:
    """*text* from either kind of base64, read as leniently as any function might."""
    kept = re.sub(rb"[^A-Za-z0-9+/]", b"", text.translate(bytes.maketrans(b"-_", b"+/")))
    if len(kept) % 4 == 1:
        kept = kept[:-1]  # a single character holds no byte
    return base64.b64decode(kept + b"=" * (-len(kept) % 4))
