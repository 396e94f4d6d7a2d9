"""
The key ring: a cache of the issuers' public keys, refreshed in the background.

A failed, empty or malformed answer never replaces keys, and keys are used for up to a day. For
each issuer at most one fetch runs at a time. Tokens with unknown keys cause at most one fetch in
ten seconds: nobody can make the broker flood an issuer, and somebody who makes a `kid` up just
before a rotation keeps the new keys out for ten seconds at most.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import inf
from pathlib import Path

import httpx2
import structlog

from federation.claims import shown
from federation.documents.model import JwtIssuer
from federation.errors import Reason, Refusal
from federation.issuers.fetch import FetchFailed, fetch_keys, open_client
from federation.jose.jwk import Key, KeySet, parse_key_set
from federation.outbound.failures import failure

_FETCH_SECONDS = 5.0  # discovery and key set together
_UNKNOWN_KEY_PAUSE_SECONDS = 10.0
_NO_KEYS_PAUSE_SECONDS = 5.0
_SERVE_SECONDS = 24 * 3600.0
_REFRESH_SECONDS = 600.0
_RETRY_SECONDS = 30.0
_FIRST_RETRY_SECONDS = 5.0
"""While no key is held. It doubles with each failure, up to `_RETRY_SECONDS`: a broker that is not
ready because of one lost answer at its start should be soon."""
_FETCHES_AT_ONCE = 16
"""In the background. A caller whose token needs a key waits for no issuer but its own."""
_TICK_SECONDS = 1.0
_LOGGED_KEYS = 20

_UNUSABLE = "The subject token names a key that its issuer publishes, but that cannot be used."
"""The whole sentence for the caller; the operator finds the reason in the log and in `/readyz`."""

_FAILURES = (FetchFailed, httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """The state of one issuer's keys, for health and metrics."""

    keys: int
    """The number of keys that can be used now."""
    pinned: bool
    age_seconds: float | None
    """Seconds since the last successful fetch; None if there was none."""
    failure: str
    """The reason of the last failed fetch; empty if the last fetch succeeded."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """For each key that is published but cannot be used the reason, by `kid` or `#index`."""


_Identity = tuple[str | None, ...]


def _identity(issuer: JwtIssuer) -> _Identity:
    """The settings that decide an issuer's keys. If one changes, the cached keys are not used."""
    pinned = None if issuer.jwks is None else json.dumps(issuer.jwks, default=dict)
    where = issuer.iss, issuer.internal_url, issuer.jwks_uri
    origin = "kubernetes" if issuer.from_kubernetes else None
    return *where, pinned, issuer.ca_bundle, issuer.bearer_token_file, origin


@dataclass(slots=True)
class _Held:
    """The cached keys and the state of one issuer. Times are of the ring's clock."""

    issuer: JwtIssuer
    keys: KeySet | None = None
    fetched: float = -inf
    """The end of the last successful fetch."""
    tried: float = -inf
    """The end of the last fetch."""
    asked: float = -inf
    """The last fetch that an unknown key caused."""
    due: float = -inf
    """The time of the next background refresh."""
    failure: str = ""
    failures: int = 0
    """Number of fetches that have failed in a row."""
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
    Finds an issuer's public key by its `kid` and fetches keys when that is needed.

    *connect* opens the client for a CA bundle (None means the machine's trust store); the ring
    closes it. *clock* counts seconds monotonically. *on_fetch* is called after each fetch, with
    True if it brought keys. JwtIssuers of Kubernetes may name tokens in *token_folder* only.
    """

    def __init__(
        self,
        connect: Callable[[str | None], httpx2.AsyncClient] = open_client,
        clock: Callable[[], float] = time.monotonic,
        *,
        jitter: Callable[[], float] = random.random,
        fetch_seconds: float = _FETCH_SECONDS,
        on_fetch: Callable[[JwtIssuer, bool], None] = lambda _issuer, _fetched: None,
        token_folder: Path | None = None,
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._jitter = jitter
        self._fetch_seconds = fetch_seconds
        self._on_fetch = on_fetch
        self._token_folder = token_folder
        self._held: dict[_Identity, _Held] = {}
        self._latest: dict[str, _Held] = {}
        self._clients: dict[str | None, httpx2.AsyncClient] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing = False

    async def key(self, issuer: JwtIssuer, kid: str | None, alg: str) -> Key:
        """
        Return the key of *issuer* that *kid* and *alg* choose. Without a *kid* of the token or of
        the keys, return the only key that fits *alg*.

        Raises: Refusal with `unknown_key`, `keys_unavailable`, or `bad_signature` if no key with
        this *kid* can sign with *alg*.
        """
        held = self._entry(issuer)
        key = self._find(held, kid, alg) or await self._find_after_fetch(held, kid, alg)
        if key is None:
            raise self._refusal(held, kid, alg)
        return key

    async def refresh(self, issuers: Callable[[], Iterable[JwtIssuer]]) -> None:
        """Refresh the keys of the current *issuers* until cancelled."""
        while True:
            await self.refresh_due(issuers())
            await asyncio.sleep(_TICK_SECONDS)

    async def refresh_due(self, issuers: Iterable[JwtIssuer]) -> None:
        """Fetch the keys of *issuers* whose refresh is due, and forget all other issuers."""
        wanted = [self._entry(issuer) for issuer in issuers]
        await self._keep_only(wanted)
        if self._renewing:
            self._renewing = False
            await self._open_new_clients()
        now = self._clock()
        due = [held for held in wanted if not held.pinned and held.due <= now]
        # Those that failed come last, so that an issuer that hangs delays none that answers.
        await self._fetch_few_at_once(sorted(due, key=lambda held: held.failure != ""))

    async def _fetch_few_at_once(self, due: Iterable[_Held]) -> None:
        """Fetch the keys of *due*: there may be thousands, written by somebody who means no good."""
        running: set[asyncio.Task[None]] = set()
        for held in due:
            running.add(held.running or self._fetch(held))
            if len(running) >= _FETCHES_AT_ONCE:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        if running:
            await asyncio.wait(running)

    def renew(self) -> None:
        """Make `refresh` fetch all keys now, over connections that read the trust store again."""
        self._renewing = True

    def status(self) -> Mapping[str, KeyStatus]:
        """Return the state of the keys of each issuer that was used, by `iss`."""
        now = self._clock()
        return {
            iss: KeyStatus(
                keys=len(usable.keys) if (usable := self._usable(held)) else 0,
                pinned=held.pinned,
                age_seconds=None if held.fetched == -inf else now - held.fetched,
                failure=held.failure,
                unusable=held.skipped,
            )
            for iss, held in self._latest.items()
        }

    async def aclose(self) -> None:
        """Cancel all fetches and close every connection."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    def _entry(self, issuer: JwtIssuer) -> _Held:
        latest = self._latest.get(issuer.iss)
        if latest is not None and latest.issuer is issuer:
            return latest
        held = self._held.setdefault(_identity(issuer), _Held(issuer))
        held.issuer = issuer
        self._latest[issuer.iss] = held
        if held.pinned and held.keys is None:
            self._pin(held)
        return held

    def _pin(self, held: _Held) -> None:
        try:
            held.keys = parse_key_set(held.issuer.jwks or {})
            held.failure = "" if held.keys.keys else _none_usable(held.keys)
        except ValueError as error:
            held.keys = KeySet()
            held.failure = f"jwks: {error}"
        self._note_skipped(held, held.keys.skipped)

    def _usable(self, held: _Held) -> KeySet | None:
        """Return the cached keys, or None if they are too old."""
        young = self._clock() - held.fetched < _SERVE_SECONDS
        return held.keys if held.pinned or young else None

    def _find(self, held: _Held, kid: str | None, alg: str) -> Key | None:
        keys = self._usable(held)
        return keys.find(kid, alg) if keys else None

    async def _find_after_fetch(self, held: _Held, kid: str | None, alg: str) -> Key | None:
        """
        Wait for a running fetch, or start one if that is allowed, and look the key up again.

        A running fetch may have started before the key was published. Waiting for it therefore
        does not count as the one fetch that an unknown key may cause.
        """
        while True:
            task, started = held.running, False
            if task is None:
                if not self._may_fetch(held):
                    return None
                task, started = self._fetch(held), True
            # `wait` does not cancel the task: other callers may wait for the same fetch.
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
        held.task = task = asyncio.create_task(self._fetch_and_replace(held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(partial(self._note_bug, held))
        return task

    def _note_bug(self, held: _Held, task: asyncio.Task[None]) -> None:
        """Log an error that no fetch should end with: the task is not awaited, so it would be lost."""
        if not task.cancelled() and (error := task.exception()):
            _log().error("fetching keys failed unexpectedly", iss=held.issuer.iss, exc_info=error)
            self._failed(held, f"unexpected error ({type(error).__name__}); the log has it whole")

    async def _fetch_and_replace(self, held: _Held) -> None:
        """Fetch keys and replace the cached ones. On failure, only record the reason."""
        try:
            async with asyncio.timeout(self._fetch_seconds):
                client = self._client(held.issuer.ca_bundle)
                keys = await fetch_keys(client, held.issuer, self._token_folder)
        except _FAILURES as error:
            self._failed(held, _text(error, self._fetch_seconds))
            return
        finally:
            held.tried = self._clock()
        self._note_skipped(held, keys.skipped)
        if not keys.keys:
            self._failed(held, _none_usable(keys))
            return
        self._on_fetch(held.issuer, True)
        if held.failure:
            _log().info("keys of an issuer are fetched again", iss=held.issuer.iss)
        held.keys, held.failure, held.failures = keys, "", 0
        held.fetched = self._clock()
        held.due = held.fetched + _REFRESH_SECONDS * (0.9 + 0.2 * self._jitter())

    def _failed(self, held: _Held, failure: str) -> None:
        self._on_fetch(held.issuer, False)
        if failure != held.failure:
            _log().warning(
                "keys of an issuer cannot be fetched",
                iss=held.issuer.iss,
                problem=failure,
                keys=len(held.keys.keys) if held.keys else 0,
            )
        held.failure = failure
        held.failures += 1
        first = _FIRST_RETRY_SECONDS * 2 ** min(held.failures - 1, 8)
        pause = _RETRY_SECONDS if self._usable(held) else min(first, _RETRY_SECONDS)
        held.due = self._clock() + pause

    def _note_skipped(self, held: _Held, skipped: Mapping[str, str]) -> None:
        """Remember and log each key that is passed over, when these change."""
        if skipped != held.skipped and skipped:
            _log().info(
                "keys of an issuer are passed over",
                iss=held.issuer.iss,
                keys={shown(kid): why for kid, why in islice(skipped.items(), _LOGGED_KEYS)},
                number=len(skipped),
            )
        held.skipped = skipped

    def _client(self, ca_bundle: str | None) -> httpx2.AsyncClient:
        if ca_bundle not in self._clients:
            self._clients[ca_bundle] = self._connect(ca_bundle)
        return self._clients[ca_bundle]

    async def _open_new_clients(self) -> None:
        """Replace every client once its fetches have ended, and make every refresh due."""
        clients, self._clients = self._clients, {}
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))
        for client in clients.values():
            await client.aclose()
        for held in self._held.values():
            held.due = -inf

    async def _keep_only(self, wanted: Iterable[_Held]) -> None:
        kept = {id(held) for held in wanted}
        for held in self._held.values():
            if id(held) not in kept and held.running:
                held.running.cancel()
        self._held = {what: held for what, held in self._held.items() if id(held) in kept}
        self._latest = {iss: held for iss, held in self._latest.items() if id(held) in kept}
        unused = self._clients.keys() - {held.issuer.ca_bundle for held in self._held.values()}
        for client in [self._clients.pop(ca_bundle) for ca_bundle in unused]:
            await client.aclose()

    def _refusal(self, held: _Held, kid: str | None, alg: str) -> Refusal:
        """
        Return why no key was found.

        It is `keys_unavailable` if the issuer may have the key, but could not be asked.
        """
        keys, why = self._usable(held), held.skipped.get(kid or "", "")
        evidence: dict[str, object] = {"iss": held.issuer.iss, "kid": kid, "alg": alg}
        if held.failure:
            evidence["failure"] = held.failure
        if why:
            return Refusal(Reason.UNKNOWN_KEY, _UNUSABLE, evidence=evidence | {"why": why})
        if keys and keys.publishes(kid):
            why = "no key with this kid fits alg"
            return Refusal(Reason.BAD_SIGNATURE, evidence=evidence | {"why": why})
        known = held.pinned or (keys is not None and not held.failure)
        return Refusal(Reason.UNKNOWN_KEY if known else Reason.KEYS_UNAVAILABLE, evidence=evidence)


def _log() -> structlog.stdlib.BoundLogger:
    log: structlog.stdlib.BoundLogger = structlog.get_logger("federation.keys")
    return log


def _none_usable(keys: KeySet) -> str:
    whys = "; ".join(f"{shown(kid)}: {why}" for kid, why in islice(keys.skipped.items(), 5))
    more = f"; and {len(keys.skipped) - 5} more" if len(keys.skipped) > 5 else ""
    return f"none of the keys can be used: {whys}{more}"


def _text(error: Exception, fetch_seconds: float) -> str:
    if isinstance(error, FetchFailed):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"no complete answer within {fetch_seconds:g} s"
    return failure(error)
