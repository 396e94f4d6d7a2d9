"""
The key ring: issuers' public keys, fetched once and remembered.

Good keys outlive bad answers: a failed, empty or malformed one replaces nothing, and what is
held serves for a day. However many tokens come, and whatever they name, an issuer sees one
fetch at a time, and for unknown keys one a minute.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import httpx2

from federation.documents.model import JwtIssuer
from federation.errors import Reason, Refusal
from federation.issuers.fetch import FetchFailed, fetch_keys, open_client
from federation.jose.jwk import Key, KeySet, parse_key_set

__all__ = ["KeyRing", "KeyStatus"]

_FETCH_SECONDS = 5.0  # discovery and key set together
_UNKNOWN_KEY_PAUSE_SECONDS = 60.0
_NO_KEYS_PAUSE_SECONDS = 5.0
_SERVE_SECONDS = 24 * 3600.0
_REFRESH_SECONDS = 600.0
_RETRY_SECONDS = 30.0
_TICK_SECONDS = 1.0

_FAILURES = (FetchFailed, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """How an issuer's keys stand."""

    keys: int
    """How many can be used now."""
    pinned: bool
    age_seconds: float | None
    """Since they were last fetched; None where they never were."""
    failure: str
    """Why the last fetch failed; empty where it did not."""


class _Identity(NamedTuple):
    """What decides which keys an issuer has. If any of it changes, nothing held is valid."""

    iss: str
    internal_url: str | None
    jwks_uri: str | None
    jwks: str | None
    ca_bundle: str | None

    @classmethod
    def of(cls, issuer: JwtIssuer) -> _Identity:
        pinned = None if issuer.jwks is None else json.dumps(issuer.jwks, default=dict)
        return cls(issuer.iss, issuer.internal_url, issuer.jwks_uri, pinned, issuer.ca_bundle)


@dataclass(slots=True)
class _Held:
    """What the ring has of one issuer. Times are the ring's clock."""

    issuer: JwtIssuer
    keys: KeySet | None = None
    fetched: float = -inf
    """When a fetch last succeeded."""
    tried: float = -inf
    """When a fetch last ended."""
    asked: float = -inf
    """When an unknown `kid` last caused a fetch."""
    due: float = -inf
    """When to fetch again unasked."""
    failure: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    @property
    def pinned(self) -> bool:
        return self.issuer.jwks is not None

    @property
    def running(self) -> asyncio.Task[None] | None:
        return self.task if self.task and not self.task.done() else None


class KeyRing:
    """
    The public keys of issuers, by issuer and `kid`.

    *connect* opens the client for a CA bundle (None: what the machine trusts); the ring closes
    it. *clock* counts seconds and never goes back. *on_fetch* is told of each fetch that ended,
    and whether it brought keys.
    """

    def __init__(
        self,
        connect: Callable[[str | None], httpx2.AsyncClient] = open_client,
        clock: Callable[[], float] = time.monotonic,
        *,
        jitter: Callable[[], float] = random.random,
        fetch_seconds: float = _FETCH_SECONDS,
        on_fetch: Callable[[JwtIssuer, bool], None] | None = None,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._jitter = jitter
        self._fetch_seconds = fetch_seconds
        self._on_fetch = on_fetch
        self._held: dict[_Identity, _Held] = {}
        self._latest: dict[str, _Held] = {}
        self._clients: dict[str | None, httpx2.AsyncClient] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def key(self, issuer: JwtIssuer, kid: str | None, alg: str) -> Key:
        """
        The key of *issuer* that is named *kid*, or the only one that fits where none is named.

        Raises: Refusal with `unknown_key`, `keys_unavailable`, or `bad_signature` where the
        named key is of a kind that cannot make a signature with *alg*.
        """
        held = self._of(issuer)
        key = self._find(held, kid, alg) or await self._look_again(held, kid, alg)
        if key is None:
            raise self._refusal(held, kid, alg)
        return key

    async def refresh(self, issuers: Callable[[], Iterable[JwtIssuer]]) -> None:
        """Keep the keys of *issuers*, as they are at each moment, fresh until cancelled."""
        while True:
            await self.refresh_due(issuers())
            await asyncio.sleep(_TICK_SECONDS)

    async def refresh_due(self, issuers: Iterable[JwtIssuer]) -> None:
        """The keys of *issuers* that had become due are fetched; other issuers are forgotten."""
        wanted = [self._of(issuer) for issuer in issuers]
        await self._forget_all_but(wanted)
        now = self._clock()
        tasks = {
            held.running or self._fetch(held)
            for held in wanted
            if not held.pinned and held.due <= now
        }
        if tasks:
            await asyncio.wait(tasks)

    def status(self) -> Mapping[str, KeyStatus]:
        """How the keys stand of each issuer that was asked for, by `iss`."""
        return {iss: self._status(held) for iss, held in self._latest.items()}

    async def aclose(self) -> None:
        """Nothing is being fetched any more, and every connection is closed."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    def _of(self, issuer: JwtIssuer) -> _Held:
        latest = self._latest.get(issuer.iss)
        if latest is not None and latest.issuer is issuer:
            return latest
        held = self._held.setdefault(_Identity.of(issuer), _Held(issuer))
        held.issuer = issuer
        self._latest[issuer.iss] = held
        if held.pinned and held.keys is None:
            self._pin(held)
        return held

    def _pin(self, held: _Held) -> None:
        try:
            held.keys = parse_key_set(held.issuer.jwks or {})
        except ValueError as error:
            held.keys = KeySet()
            held.failure = f"jwks: {error}"
        held.skipped = held.keys.skipped
        if not held.keys.keys and not held.failure:
            held.failure = _none_usable(held.keys)

    def _usable(self, held: _Held) -> KeySet | None:
        """The keys held, while they may be used."""
        young = self._clock() - held.fetched < _SERVE_SECONDS
        return held.keys if held.pinned or young else None

    def _find(self, held: _Held, kid: str | None, alg: str) -> Key | None:
        keys = self._usable(held)
        if keys is None:
            return None
        key = keys.find(kid, alg)
        if key is None and keys.publishes(kid):
            evidence = {"iss": held.issuer.iss, "kid": kid, "alg": alg}
            raise Refusal(
                Reason.BAD_SIGNATURE, evidence={**evidence, "why": "the key does not fit alg"}
            )
        return key

    async def _look_again(self, held: _Held, kid: str | None, alg: str) -> Key | None:
        """
        The key, after the fetch that is under way or that this lookup may cause.

        A fetch under way may have begun before the key was published, so one that was joined
        does not use up the one that this lookup may cause.
        """
        while True:
            task, started = held.running, False
            if task is None:
                if not self._may_fetch(held):
                    return None
                task, started = self._fetch(held), True
            # A caller that is cancelled here leaves the fetch to those who share it.
            await asyncio.wait({task})
            if key := self._find(held, kid, alg):
                return key
            if started:
                held.asked = self._clock()

    def _may_fetch(self, held: _Held) -> bool:
        if held.pinned:
            return False
        now = self._clock()
        if self._usable(held) is None:
            return now - held.tried >= _NO_KEYS_PAUSE_SECONDS
        return now - held.asked >= _UNKNOWN_KEY_PAUSE_SECONDS

    def _fetch(self, held: _Held) -> asyncio.Task[None]:
        held.task = task = asyncio.create_task(self._renew(held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _renew(self, held: _Held) -> None:
        """Newly fetched keys replace those held; a failure only leaves its reason."""
        try:
            async with asyncio.timeout(self._fetch_seconds):
                keys = await fetch_keys(self._client(held.issuer.ca_bundle), held.issuer)
        except _FAILURES as error:
            self._failed(held, _text(error, self._fetch_seconds))
            return
        finally:
            held.tried = self._clock()
        if not keys.keys:
            self._failed(held, _none_usable(keys))
            held.skipped = keys.skipped
            return
        self._tell(held, True)
        held.keys, held.skipped, held.failure = keys, keys.skipped, ""
        held.fetched = self._clock()
        held.due = held.fetched + _REFRESH_SECONDS * (0.9 + 0.2 * self._jitter())

    def _failed(self, held: _Held, failure: str) -> None:
        self._tell(held, False)
        held.failure = failure
        held.due = self._clock() + _RETRY_SECONDS

    def _tell(self, held: _Held, fetched: bool) -> None:
        if self._on_fetch is not None:
            self._on_fetch(held.issuer, fetched)

    def _client(self, ca_bundle: str | None) -> httpx2.AsyncClient:
        if ca_bundle not in self._clients:
            self._clients[ca_bundle] = self._connect(ca_bundle)
        return self._clients[ca_bundle]

    async def _forget_all_but(self, wanted: Iterable[_Held]) -> None:
        kept = {id(held) for held in wanted}
        for held in self._held.values():
            if id(held) not in kept and held.running:
                held.running.cancel()
        self._held = {what: held for what, held in self._held.items() if id(held) in kept}
        self._latest = {iss: held for iss, held in self._latest.items() if id(held) in kept}
        unused = self._clients.keys() - {what.ca_bundle for what in self._held}
        for client in [self._clients.pop(ca_bundle) for ca_bundle in unused]:
            await client.aclose()

    def _refusal(self, held: _Held, kid: str | None, alg: str) -> Refusal:
        """Unknown, if the issuer was heard and does not publish it; else we cannot say."""
        why = held.skipped.get(kid or "", "")
        heard = held.pinned or why or (self._usable(held) is not None and not held.failure)
        return Refusal(
            Reason.UNKNOWN_KEY if heard else Reason.KEYS_UNAVAILABLE,
            evidence={
                "iss": held.issuer.iss,
                "kid": kid,
                "alg": alg,
                **({"why": why} if why else {}),
                **({"failure": held.failure} if held.failure else {}),
            },
        )

    def _status(self, held: _Held) -> KeyStatus:
        usable = self._usable(held)
        return KeyStatus(
            keys=len(usable.keys) if usable else 0,
            pinned=held.pinned,
            age_seconds=None if held.fetched == -inf else self._clock() - held.fetched,
            failure=held.failure,
        )


def _none_usable(keys: KeySet) -> str:
    whys = "; ".join(f"{kid}: {why}" for kid, why in list(keys.skipped.items())[:5])
    return f"none of the keys can be used: {whys}"


def _text(error: Exception, fetch_seconds: float) -> str:
    if isinstance(error, FetchFailed):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"no complete answer within {fetch_seconds:g} s"
    return f"{type(error).__name__}: {error}"
