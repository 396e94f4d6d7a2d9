"""
The kinds of values that settings have: what each takes, and the sentence for what it does not.

A value that may hold a password is refused before a message quotes it.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from federation.config.redis_url import strict_redis_url
from federation.documents.values import duration, loopback, url_fault
from federation.pages import docs_address

PUBLIC_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
)
"""Scheme, host and port: a URL without a path."""
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    return path


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder")
    return path.absolute()


def _check_no_password(url: str, instead: str = "") -> None:
    """Refuse a URL with a user before another message quotes it. Raises: ValueError."""
    if "@" in url:
        raise ValueError(f"it must not hold a user, a password or an @{instead}")


def _public_url(url: str) -> str:
    _check_no_password(url)
    found = PUBLIC_URL.fullmatch(url)
    if not found or int(found["port"] or 0) > 65535:
        raise ValueError(
            f"{url!r} must be like https://gateway.example.com: no path, no slash at the end"
        )
    if found["scheme"] == "http" and not loopback(found["host"].strip("[]")):
        raise ValueError(f"{url!r} must be https; http is for loopback addresses only")
    return url


def _gateway_url(url: str) -> str:
    if url.startswith("unix:"):
        if not re.fullmatch(r"unix:/[^/\0][^\0]*", url):
            raise ValueError(f"{url!r} must be like unix:/run/gateway.sock, with a whole path")
        return url
    _check_no_password(url, "; put the gateway's user and password into files of upstream-secrets")
    if not PUBLIC_URL.fullmatch(url.removesuffix("/")):
        raise ValueError(
            f"{url!r} must be like http://gateway.openfaas:8080, without a path,"
            " or unix:/run/gateway.sock"
        )
    return url.removesuffix("/")


def webhook_url(url: str) -> str:
    """Return *url* if audit events may be sent to it. Raises: ValueError."""
    parts = urlsplit(url)
    plain = re.fullmatch(r"https?://[!-~]+", url, re.IGNORECASE)
    if not plain or not parts.hostname or parts.fragment:
        raise ValueError("it must be like https://receiver.example.com/events")
    if parts.username is not None:
        raise ValueError(
            "it must not hold a password; use audit-webhook-secret or audit-webhook-header instead"
        )
    if parts.scheme == "http" and not loopback(parts.hostname):
        raise ValueError("it must be https; http is for loopback addresses only")
    return url


def _parts(text: str) -> list[str]:
    """The values of a setting that are separated by commas, with white space or without."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _networks(text: str) -> str:
    for network in _parts(text):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError(f"{network!r} {_no_network(network)}") from None
    return ",".join(_parts(text))


def has_every_address(networks: str) -> bool:
    """True if one of *networks*, which are separated by commas, has every address of its kind."""
    return any(ipaddress.ip_network(network).prefixlen == 0 for network in _parts(networks))


def _no_network(network: str) -> str:
    try:
        meant = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return "is not a network; write networks like 10.0.0.0/8, fd00::/8"
    return f"has bits beyond its prefix; write {meant} for the network, or the address without /"


def _hosts(text: str) -> str:
    for host in _parts(text):
        if not _HOST.fullmatch(host):
            raise ValueError(
                f"{host!r} must be a host name, with a port or without one, like"
                " hooks.example.com or gateway.openfaas:8080"
            )
    return ",".join(_parts(text))


def _verbs(text: object) -> object:
    return ",".join(_parts(text)) if isinstance(text, str) else text


def _length(text: object) -> timedelta:
    # A number alone is seconds, as in OpenFaaS's own settings.
    seconds = f"{text}s" if str(text).isdecimal() else str(text)
    length = text if isinstance(text, timedelta) else duration(seconds)
    if length is None:
        raise ValueError(f"{text!r} must be a duration such as 90s, 1m or 1h30m")
    return length


def _provider_url(url: str) -> str:
    _check_no_password(url)
    if fault := url_fault(url):
        raise ValueError(
            f"{url!r} {fault}; it must be the issuer URL of an OpenID provider, exactly as it"
            " stands in iss of its ID tokens"
        )
    return url


def _scopes(text: str) -> str:
    # The characters are those of RFC 6749, section 3.3.
    if not re.fullmatch(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*", text) or "openid" not in text.split(" "):
        raise ValueError(
            f"{text!r} must be scopes with one space between them, openid among them: a provider"
            " gives an ID token for nothing less"
        )
    return text


def _redis_url(url: SecretStr) -> SecretStr:
    return SecretStr(strict_redis_url(url.get_secret_value()))


ExistingPath = Annotated[Path, AfterValidator(_existing)]
Folder = Annotated[Path, AfterValidator(_folder)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
GatewayUrl = Annotated[str, AfterValidator(_gateway_url)]
WebhookUrl = Annotated[str, AfterValidator(webhook_url)]
Duration = Annotated[timedelta, BeforeValidator(_length)]
RedisUrl = Annotated[SecretStr, AfterValidator(_redis_url)]
Networks = Annotated[str, AfterValidator(_networks)]
ProviderUrl = Annotated[str, AfterValidator(_provider_url)]
Scopes = Annotated[str, AfterValidator(_scopes)]
Hosts = Annotated[str, AfterValidator(_hosts)]
DocsUrl = Annotated[str, AfterValidator(docs_address)]
Verbs = Annotated[str, BeforeValidator(_verbs)]
