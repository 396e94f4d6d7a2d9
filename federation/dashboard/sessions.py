"""
Sessions of people: begun, found and ended. They live in the session store, sealed.

The cookie has a random id; the store knows its digest only. A session ends after its lifetime,
after a time without a request, with a sign-out here or at the provider, and when its access token
can no longer be renewed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from federation.claims import Claims
from federation.dashboard.sealing import Sealer
from federation.dashboard.session import Session
from federation.sign_on.provider import LoggedOut, Tokens
from federation.state.sessions import SessionStore

_EARLY_SECONDS = 60.0
_MARK_SECONDS = 900.0
"""A logout at the provider also ends a session that begins so shortly after it was told."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The access token that the broker gave for a person, and when it expires."""

    access_token: str = field(repr=False)
    given: float
    expires: float

    @property
    def renew_at(self) -> float:
        """When it should be renewed: a minute before its end, or after three quarters of its life."""
        return self.expires - min(_EARLY_SECONDS, (self.expires - self.given) / 4)


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that is kept of one session."""

    key: str
    """Its name in the store: the digest of the cookie."""
    session: Session
    access_expires: float
    renew_at: float
    refresh_token: str = field(repr=False)
    """Empty if the provider gave none. The session then ends with its access token."""
    id_token: str = field(repr=False)
    """The ID token of the sign-in, which tells the provider who signs out."""
    generation: int = 0
    """Number of times that the access token was renewed."""

    @property
    def shown(self) -> str:
        """The session's name in the log. No cookie can be made from it."""
        return self.key[:12]

    @property
    def subject(self) -> str:
        """The person's `sub` at the provider."""
        return str(self.session.claims.get("sub", ""))


class Sessions:
    """The sessions in *store*, sealed by *sealer*, of people of the provider *issuer*."""

    def __init__(
        self,
        store: SessionStore,
        sealer: Sealer,
        clock: Callable[[], float],
        *,
        lifetime: timedelta,
        idle: timedelta,
    ) -> None:
        self.store = store
        self._sealer = sealer
        self._clock = clock
        self._lifetime = lifetime.total_seconds()
        self._idle = idle.total_seconds()

    async def begin(self, tokens: Tokens, granted: Granted) -> str:
        """
        Begin a session for who signed in, and return the id for their cookie.

        The id is new at each sign-in, so that nobody can give a person an id that they know.
        Returns an empty id if the provider ended the sign-in meanwhile.
        """
        cookie_id, now = secrets.token_urlsafe(32), self._clock()
        ends = now + self._lifetime
        if not tokens.refresh_token:
            ends = min(ends, granted.expires)
        session = Session(
            person=_person(tokens.claims),
            claims=tokens.claims,
            access_token=granted.access_token,
            expires=ends,
            csrf=secrets.token_urlsafe(32),
        )
        record = Record(
            key=key_of(cookie_id),
            session=session,
            access_expires=granted.expires,
            renew_at=granted.renew_at,
            refresh_token=tokens.refresh_token,
            id_token=tokens.id_token,
        )
        tags = _tags(tokens.claims)
        await self.store.put(
            record.key, self._sealed(record), min(now + self._idle, ends), tags, ends
        )
        # A logout can be told between the provider's answer and the line above.
        for tag in tags:
            told = await self.store.get(_mark(tag))
            if told is not None and _begun_before(float(told), tokens.claims, tag):
                await self.store.delete(record.key)
                return ""
        return cookie_id

    async def find(self, cookie_id: str) -> Record | None:
        """The live session of a cookie."""
        return await self.read(key_of(cookie_id)) if cookie_id else None

    async def read(self, key: str) -> Record | None:
        """The live session under *key*."""
        now = self._clock()
        sealed = await self.store.get(key, now + self._idle)
        value = self._sealer.open(key, sealed) if sealed else None
        record = _read(key, value) if value else None
        return record if record and record.session.expires > now else None

    async def replace(self, record: Record) -> bool:
        """Keep the new *record* of a session. False if the session ended meanwhile."""
        until = min(self._clock() + self._idle, record.session.expires)
        return await self.store.replace(record.key, self._sealed(record), until)

    async def end(self, record: Record) -> bool:
        """End a session. False if it had ended before."""
        return await self.store.delete(record.key)

    async def end_logged_out(self, ended: LoggedOut) -> int:
        """End the sessions that the provider ended, on every replica. Return how many there were."""
        tag = _sid_tag(ended.sid) if ended.sid else _sub_tag(ended.sub)
        await self.store.put(_mark(tag), repr(ended.issued), self._clock() + _MARK_SECONDS)
        return await self.store.delete_tagged(tag)

    def _sealed(self, record: Record) -> str:
        session = record.session
        return self._sealer.seal(
            record.key,
            {
                "person": session.person,
                "claims": dict(session.claims),
                "access_token": session.access_token,
                "expires": session.expires,
                "csrf": session.csrf,
                "access_expires": record.access_expires,
                "renew_at": record.renew_at,
                "refresh_token": record.refresh_token,
                "id_token": record.id_token,
                "generation": record.generation,
            },
        )


def key_of(cookie_id: str) -> str:
    """The name of a session in the store."""
    return hashlib.sha256(cookie_id.encode()).hexdigest()


def _read(key: str, value: Mapping[str, object]) -> Record | None:
    match value:
        case {
            "person": str(person),
            "claims": dict(claims),
            "access_token": str(access_token),
            "expires": int(expires) | float(expires),
            "csrf": str(csrf),
            "access_expires": int(access_expires) | float(access_expires),
            "renew_at": int(renew_at) | float(renew_at),
            "refresh_token": str(refresh_token),
            "id_token": str(id_token),
            "generation": int(generation),
        }:
            # They were verified before they were sealed.
            session = Session(person, Claims(claims), access_token, expires, csrf)
            return Record(
                key, session, access_expires, renew_at, refresh_token, id_token, generation
            )
    return None


def _person(claims: Claims) -> str:
    names = (claims.get(name) for name in ("name", "email", "preferred_username", "sub"))
    return next((name for name in names if isinstance(name, str) and name), "")


def _tags(claims: Claims) -> tuple[str, ...]:
    sid = claims.get("sid")
    tags = [_sub_tag(str(claims.get("sub", "")))]
    return (*tags, _sid_tag(sid)) if isinstance(sid, str) and sid else tuple(tags)


def _sid_tag(sid: str) -> str:
    return "sid-" + hashlib.sha256(sid.encode()).hexdigest()


def _sub_tag(sub: str) -> str:
    return "sub-" + hashlib.sha256(sub.encode()).hexdigest()


def _mark(tag: str) -> str:
    return f"ended-{tag}"


def _begun_before(logout: float, claims: Claims, tag: str) -> bool:
    """Return True if a *logout* that carried *tag* ended the sign-in with *claims*."""
    issued = claims.get("iat")
    # A `sid` never comes back. A person may sign in again a second after they were signed out.
    return tag.startswith("sid-") or not isinstance(issued, int | float) or issued <= logout
