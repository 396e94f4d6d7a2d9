"""
Sessions of the people of this machine, one for each gateway, and the settings they signed in with.

Two folders: `sessions` holds tokens, and a file there goes when its person signs out. `gateways`
holds how to sign in, which is no secret; it stays, so that the next login needs no options.

Refresh tokens may be good for one use. So a session keeps the one before the newest as well, and
the ID token that came with it until it was exchanged: whatever the provider has given is on disk
before anything is done with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from federation.client import ClientError
from federation.client.faas_cli import gateway_name
from federation.client.http import require_secure_url
from federation.sign_on.authority import base_of
from federation.sign_on.private_folder import Damaged, PrivateFolder

CLIENT_CREDENTIALS = "client-credentials"
"""The grant of a client that signs in itself, by its secret."""
_FORMAT = 1
Kept = TypeVar("Kept", "SignInSettings", "Session")


@dataclass(frozen=True, slots=True)
class SignInSettings:
    """The provider, client and scopes with which people sign in for one gateway."""

    authority: str
    client_id: str
    scopes: str = "openid profile email"
    client_secret_file: str = ""
    """The file that holds the client secret. The secret itself is not kept."""
    grant: str = "auto"
    port: int = 31111
    redirect_host: str = "127.0.0.1"
    roles: tuple[str, ...] = ()
    published: bool = False
    """True if the gateway named authority and client, and not the person."""


@dataclass(frozen=True, slots=True)
class Session:
    """A person who signed in for one gateway, with the tokens."""

    gateway: str
    settings: SignInSettings
    issuer: str
    sub: str
    person: str
    """The name to show."""
    grant: str
    signed_in: float
    access_token: str = field(repr=False)
    access_expires: float
    access_seconds: float
    """The lifetime of the access token when it was new."""
    id_token: str = field(default="", repr=False)
    """The newest ID token. It is exchanged again where there is no refresh token."""
    refresh_tokens: tuple[str, ...] = field(default=(), repr=False)
    """The newest first, then the one before, which some providers still take."""
    received: str = field(default="", repr=False)
    """An ID token that a refresh gave and that was neither verified nor exchanged yet."""

    def lives_for(self, seconds: float, now: float) -> bool:
        """
        Return whether the access token is good for *seconds* more.

        Half of its lifetime is enough: a gateway may give tokens that are shorter than what is
        asked for, and each call would renew them in vain.
        """
        return self.access_expires - now >= min(seconds, self.access_seconds / 2)

    @property
    def is_over(self) -> bool:
        """True if there is nothing left by which it could be renewed."""
        renewable = self.refresh_tokens or self.id_token or self.received
        return not renewable and self.grant != CLIENT_CREDENTIALS


class Sessions:
    """The sessions under the folder *home*. Every method raises ClientError."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._sessions = PrivateFolder(home / "sessions")
        self._gateways = PrivateFolder(home / "gateways")

    def of(self, gateway: str) -> Session | None:
        """Return the session for *gateway*, None if nobody is signed in."""
        name = _file_name(gateway)
        found = self._sessions.read(name)
        if found is None:
            return None
        try:
            settings = _settings(found["settings"])
            session = _filled(Session, {**found, "settings": settings})
        except (KeyError, TypeError, ValueError) as error:
            raise self._sessions.damaged(name) from error
        return session if session.gateway == gateway else None

    def save(self, session: Session) -> None:
        """Save *session*. Hold the lock of its gateway."""
        value = {"format": _FORMAT, **asdict(session)}
        self._sessions.write(_file_name(session.gateway), value)

    def remove(self, gateway: str) -> bool:
        """Remove the session for *gateway*. False if there was none."""
        return self._sessions.remove(_file_name(gateway))

    @contextmanager
    def locked(
        self, gateway: str, tell: Callable[[str], None] = lambda _line: None
    ) -> Iterator[int]:
        """Be the only process that renews, saves or removes the session for *gateway*."""
        with self._sessions.locked(_file_name(gateway), tell) as handle:
            yield handle

    @contextmanager
    def faas_cli_locked(self) -> Iterator[None]:
        """Be the only federation that changes the configuration of faas-cli."""
        with self._sessions.locked("faas-cli"):
            yield

    def gateways(self) -> list[str]:
        """Return the gateways for which somebody is signed in."""
        return self._named(self._sessions)

    def known_gateways(self) -> list[str]:
        """Return every gateway that somebody has signed in for, also those who signed out."""
        return sorted({*self._named(self._sessions), *self._named(self._gateways)})

    def settings_of(self, gateway: str) -> SignInSettings | None:
        """Return how people signed in for *gateway* the last time, None if nobody did."""
        name = _file_name(gateway)
        found = self._gateways.read(name)
        if found is None or found.get("gateway") != gateway:
            return None
        try:
            return _settings(found["settings"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._gateways.damaged(name) from error

    def remember(self, gateway: str, settings: SignInSettings) -> None:
        """Keep *settings* for the next login. Hold the lock of the gateway."""
        value = {"format": _FORMAT, "gateway": gateway, "settings": asdict(settings)}
        self._gateways.write(_file_name(gateway), value)

    def others_with(self, settings: SignInSettings, gateway: str) -> list[str]:
        """Return the other gateways whose people sign in as the same client of the same provider."""
        found = []
        for other in self.known_gateways():
            with _tolerating_damage():
                known = self.settings_of(other)
                if (
                    other != gateway
                    and known is not None
                    and base_of(known.authority) == base_of(settings.authority)
                    and known.client_id == settings.client_id
                ):
                    found.append(other)
        return found

    def other_providers(self, settings: SignInSettings, gateway: str) -> dict[str, str]:
        """Return the providers of this person's other gateways: a gateway of each, by authority."""
        found: dict[str, str] = {}
        for other in self.known_gateways():
            with _tolerating_damage():
                known = self.settings_of(other)
                if other != gateway and known is not None:
                    found.setdefault(base_of(known.authority), other)
        found.pop(base_of(settings.authority), None)
        return found

    def _named(self, folder: PrivateFolder) -> list[str]:
        names = []
        for name in folder.names():
            with _tolerating_damage():
                gateway = (folder.read(name) or {}).get("gateway")
                if isinstance(gateway, str) and _file_name(gateway) == name:
                    names.append(gateway)
        return names


def gateway_of(url: str) -> str:
    """
    Return the name by which sessions and faas-cli know the gateway at *url*.

    Raises: ClientError if *url* is not https, or names more than a server.
    """
    require_secure_url(url, "The gateway's URL")
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ClientError("The gateway's URL has more than a server.", "Write https://HOST.")
    if parts.path.strip("/"):
        raise ClientError(
            f"The gateway's URL {url!r} has a path.",
            f"Write {parts.scheme}://{parts.netloc}: a gateway is at the root of a server.",
        )
    return gateway_name(url)


@contextmanager
def _tolerating_damage() -> Iterator[None]:
    """One damaged file does not hide the others."""
    try:
        yield
    except Damaged:
        return


def _file_name(gateway: str) -> str:
    """A name that people recognise, and that no other gateway has."""
    host = re.sub(r"[^a-z0-9.-]", "_", urlsplit(gateway).netloc)[:64]
    return f"{host}-{hashlib.sha256(gateway.encode()).hexdigest()[:16]}.json"


def _settings(value: object) -> SignInSettings:
    if not isinstance(value, Mapping):
        raise TypeError("settings are an object")
    return _filled(SignInSettings, value)


def _filled(kind: type[Kept], value: Mapping[str, object]) -> Kept:
    """A *kind* with the members of *value*, each of the type that it has there."""
    members: dict[str, Any] = {}
    for each in fields(kind):
        if each.name not in value:
            continue
        member, wanted = value[each.name], str(each.type)
        if wanted.startswith("tuple"):
            if not isinstance(member, list) or not all(isinstance(one, str) for one in member):
                raise TypeError(f"{each.name} is a list of strings")
            member = tuple(member)
        elif not isinstance(member, _TYPES[wanted]) or (
            isinstance(member, bool) and wanted != "bool"
        ):
            raise TypeError(f"{each.name} has another type")
        members[each.name] = member
    return kind(**members)


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "SignInSettings": SignInSettings,
}


def with_refresh_token(session: Session, given: str) -> Session:
    """Return *session* with the refresh token *given* as the newest, empty if none was given."""
    if not given or given in session.refresh_tokens[:1]:
        return session
    return replace(session, refresh_tokens=(given, *session.refresh_tokens[:1]))
