"""
Delivery of audit events to a webhook, as OpenFaaS does it: at least once, in order per process.

Only a 2xx answer counts and moves the cursor. Any other batch is retried with exponential
back-off until the webhook accepts it. A living process delivers what a dead one left.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic

import httpx2
import structlog

from federation import __version__
from federation.audit.backlog import undelivered_from
from federation.audit.journal import FileJournal
from federation.audit.read import Batch, batch_of, ends
from federation.audit.segments import Lock, cursor_of, drop, set_cursor, stored

_TIMEOUT = httpx2.Timeout(15.0, connect=5.0)
_TOTAL_SECONDS = 15.0
_ANSWER_BYTES = 64 * 1024
_SECRET_BYTES = 4096
_HEADER_LINE = re.compile(
    rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[!-~]([ \t!-~]*[!-~])?)"
)
_OWN_HEADERS = re.compile(
    r"(?i)x-openfaas-.*|content-.*|transfer-encoding|host|connection|accept-encoding"
)
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_LONGEST_RETRY_AFTER_SECONDS = 300.0
_ADOPT_SECONDS = 5.0
_TEMPORARY = frozenset({408, 425, 429})


class NotDelivered(Exception):
    """The webhook did not accept a batch."""

    def __init__(
        self, why: str, *, status: int | None = None, retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(why)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


def trusting(ca: Path | None) -> ssl.SSLContext | bool:
    """Return what verifies the webhook's certificate: *ca*, or the machine's trust store if None."""
    return ssl.create_default_context(cafile=str(ca)) if ca else True


class Webhook:
    """
    Sends batches to the receiver at *url*.

    *header* is a file with one more header line, such as `Authorization: …`. It and the secret are
    read for each batch and the CA for each new client, so that they can be changed while the broker
    runs. Proxies and `SSL_CERT_FILE` from the environment apply.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: Path | None = None,
        header: Path | None = None,
        ca: Path | None = None,
        total_seconds: float = _TOTAL_SECONDS,
    ) -> None:
        self._url = url
        self._secret = secret
        self._header = header
        self._ca = ca
        self._total_seconds = total_seconds
        self._client: httpx2.AsyncClient | None = None
        self._renewing = False

    def __repr__(self) -> str:
        return f"<Webhook at {self.host}>"

    @property
    def host(self) -> str:
        """The host. The rest of the URL may hold a secret and is never logged."""
        return httpx2.URL(self._url).host

    async def post(self, body: bytes, delivery_id: str) -> None:
        """Send *body* and wait for a 2xx answer. Raises: NotDelivered."""
        if self._renewing:
            self._renewing = False
            await self.aclose()
        try:
            headers = self._headers(body, delivery_id)
            client = self._client = self._client or httpx2.AsyncClient(
                verify=trusting(self._ca), timeout=_TIMEOUT, follow_redirects=False
            )
            async with asyncio.timeout(self._total_seconds):
                await self._send(client, body, headers)
        except NotDelivered:
            raise
        except TimeoutError as error:
            await self.aclose()
            raise NotDelivered(f"no whole answer within {self._total_seconds:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            await self.aclose()  # a new client reads the CA, the proxies and the DNS name again
            raise NotDelivered(str(error) or type(error).__name__) from error

    def renew(self) -> None:
        """Make the next batch go over a new connection, which reads the CA again."""
        self._renewing = True

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client:
            await client.aclose()

    async def _send(self, client: httpx2.AsyncClient, body: bytes, headers: dict[str, str]) -> None:
        async with client.stream("POST", self._url, content=body, headers=headers) as response:
            read = 0
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > _ANSWER_BYTES:
                    break
        if not response.is_success:
            raise NotDelivered(
                f"HTTP {response.status_code}",
                status=response.status_code,
                retry_after_seconds=_retry_after(response),
            )

    def _headers(self, body: bytes, delivery_id: str) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"federation/{__version__}",
            "X-Openfaas-Event": "api_access",
            "X-Openfaas-Delivery": delivery_id,
        }
        if self._secret is not None:
            digest = hmac.new(_read_secret(self._secret), body, hashlib.sha256).hexdigest()
            headers["X-Openfaas-Signature-256"] = f"sha256={digest}"
        if self._header is not None:
            try:
                name, value = read_header(self._header)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise NotDelivered(f"the extra header cannot be read: {why}") from error
            headers[name] = value
        return headers


class Delivery:
    """Delivers the events of *journal*, and those that dead processes left, to *webhook*."""

    def __init__(
        self,
        journal: FileJournal,
        webhook: Webhook,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._journal = journal
        self._webhook = webhook
        self._jitter = jitter
        self._adopted: dict[str, Lock] = {}
        self._adopt_due = 0.0
        self._cursors: dict[Path, int] = {}
        self._stopping = asyncio.Event()
        self.problem: str | None = None
        """Why the webhook refused the last batch, if only an operator can help against that."""
        self._log = structlog.get_logger("federation.audit")

    async def run(self) -> None:
        """Deliver events as they come until `stop`. Then stop at the first failure."""
        try:
            while await self._step():
                pass
        finally:
            await self._webhook.aclose()
            self._release_adopted()

    def renew(self) -> None:
        """Make the next batch go over a new connection, which reads the CA again."""
        self._webhook.renew()

    def stop(self) -> None:
        """End `run` when everything is delivered, or at the first failure."""
        self._stopping.set()
        self._journal.recorded.set()

    async def _step(self) -> bool:
        """Deliver one batch or wait for one. Return False to end."""
        try:
            self._journal.recorded.clear()
            batch = await asyncio.to_thread(self._find)
            if batch:
                return await self._deliver(batch)
            if not self._stopping.is_set():
                with suppress(TimeoutError):  # time to look for dead processes again
                    async with asyncio.timeout(_ADOPT_SECONDS):
                        await self._journal.recorded.wait()
                return True
        except Exception as error:  # the error boundary: delivery must survive any fault
            self._log.exception("audit delivery failed; it goes on", exc_info=error)
            await self._pause(_LONGEST_PAUSE_SECONDS if not isinstance(error, OSError) else 1.0)
        return not self._stopping.is_set()

    async def _deliver(self, batch: Batch) -> bool:
        """Send *batch* until it is accepted. Return False if the broker stops first."""
        if batch.unreadable:
            self._log.error(
                "audit lines were changed and are not delivered; see `federation audit verify`",
                segment=batch.path.name,
                lines=batch.unreadable,
            )
        tries = 0
        while batch.contents:
            try:
                await self._webhook.post(batch.body, batch.delivery_id)
                break
            except NotDelivered as refused:
                seconds = self._seconds_to_wait(tries, refused)
                self._log_refusal(refused, batch, tries, seconds)
            tries += 1
            if await self._pause(seconds):
                return False
        self.problem = None
        if tries:
            self._log.info("audit webhook takes events again", host=self._webhook.host)
        await asyncio.to_thread(self._taken, batch.path, batch.end)
        return True

    def _seconds_to_wait(self, tries: int, refused: NotDelivered) -> float:
        """
        Back off exponentially, with full jitter so that many brokers do not retry at once.

        `Retry-After` is the least.
        """
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(tries, 10))
        return max(self._jitter(0, longest), refused.retry_after_seconds)

    def _log_refusal(self, refused: NotDelivered, batch: Batch, tries: int, seconds: float) -> None:
        # Only an operator can help against most 4xx answers.
        temporary = refused.status is None or refused.status >= 500 or refused.status in _TEMPORARY
        self.problem = None if temporary else str(refused)
        log = self._log.warning if temporary else self._log.error
        log(
            "audit webhook did not take a batch",
            host=self._webhook.host,
            why=str(refused),
            delivery=batch.delivery_id,
            events=len(batch.contents),
            tries=tries + 1,
            next_try_in_seconds=round(seconds, 1),
        )

    async def _pause(self, seconds: float) -> bool:
        """Wait *seconds*. Return True if the broker began to stop meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        return False

    # The following methods run in a thread, one at a time.

    def _find(self) -> Batch | None:
        """Return the next batch: of dead processes first, then of this one."""
        if monotonic() >= self._adopt_due:
            self._adopt()
            self._adopt_due = monotonic() + _ADOPT_SECONDS
        return self._of_dead_processes() or self._of_this_process()

    def _adopt(self) -> None:
        """Take over what dead processes left: deliver it, and seal it as nobody else can now."""
        self._cursors = {path: end for path, end in self._cursors.items() if path.exists()}
        for segment in stored(self._journal.folder):
            process = segment.process
            if process == self._journal.process or process in self._adopted:
                continue
            if undelivered_from(segment) is not None and (
                lock := Lock.take(self._journal.folder, process)
            ):
                self._adopted[process] = lock
                self._log.info("audit events of an ended process adopted", process=process)
        for process in self._adopted:
            try:
                self._journal.seal_left_by(process)
            except OSError as error:  # tried again with the next look
                self._log.warning("audit segments not sealed", process=process, error=str(error))

    def _of_dead_processes(self) -> Batch | None:
        if not self._adopted:
            return None
        segments = stored(self._journal.folder)
        counted = ends(segments)
        for segment in segments:
            if segment.process in self._adopted and undelivered_from(segment) is not None:
                with suppress(FileNotFoundError):  # of outsiders, and dropped since the listing
                    if batch := self._after_cursor(segment.path, counted[segment.path]):
                        return batch
                    self._done(segment.path)
        self._release_adopted()
        return None

    def _release_adopted(self) -> None:
        for process in list(self._adopted):
            self._adopted.pop(process).release()

    def _of_this_process(self) -> Batch | None:
        for segment in self._journal.undelivered():
            try:
                batch = self._after_cursor(segment.path, segment.end)
            except FileNotFoundError:
                if self._journal.owed:  # else it was dropped since the listing
                    name = segment.path.name
                    self._log.error("an undelivered audit segment is gone", segment=name)
                batch = None
            if batch:
                return batch
            if segment.closed:
                self._done(segment.path)
                self._journal.delivered(segment.path)
        return None

    def _after_cursor(self, path: Path, end: int) -> Batch | None:
        start = self._cursors.get(path)
        return batch_of(path, cursor_of(path) if start is None else start, end)

    def _done(self, path: Path) -> None:
        """Move the cursor of *path* to its end: nothing more comes."""
        with suppress(FileNotFoundError):
            if self._taken(path, path.stat().st_size):
                self._cursors.pop(path, None)

    def _taken(self, path: Path, end: int) -> bool:
        """Move the cursor of *path* to *end*. Return whether it is on disk."""
        # On a full disk the cursor is kept in memory alone. Without that, the same batch would
        # be sent over and over.
        self._cursors[path] = end
        try:
            set_cursor(path, end)
        except OSError as error:
            self._log.warning("audit cursor not written", segment=path.name, error=str(error))
            return False
        if not path.exists():  # dropped meanwhile, and its cursor must not stay alone
            drop(path)
        return True


def _read_secret(path: Path) -> bytes:
    """
    Return the secret in *path* without the one line end that editors add.

    Raises: NotDelivered, because a batch that should be signed is not sent unsigned.
    """
    try:
        with path.open("rb") as file:
            secret = file.read(_SECRET_BYTES + 1)
    except OSError as error:
        raise NotDelivered(f"the secret cannot be read: {error.strerror}") from error
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret or len(secret) > _SECRET_BYTES:
        raise NotDelivered("the file with the secret is empty or larger than 4 KiB")
    return secret


def read_header(path: Path) -> tuple[str, str]:
    """
    Return name and value of the one header line in *path*.

    No message quotes the line, which may be a secret. Raises: OSError, ValueError.
    """
    with path.open("rb") as file:
        text = file.read(_SECRET_BYTES + 1)
    line = _HEADER_LINE.fullmatch(text.removesuffix(b"\n").removesuffix(b"\r"))
    if not line or len(text) > _SECRET_BYTES:
        raise ValueError(f"{path} must hold one line such as Authorization: Bearer …, up to 4 KiB")
    name = line["name"].decode("ascii")
    if _OWN_HEADERS.fullmatch(name):
        raise ValueError(f"{path} must not set {name}, which the broker sets itself")
    return name, line["value"].decode("ascii")


def _retry_after(response: httpx2.Response) -> float:
    """Return the seconds of `Retry-After` (RFC 9110, section 10.2.3), within a bound."""
    given = response.headers.get("retry-after", "").strip()
    if given.isdecimal() and len(given) < 10:
        seconds = float(given)
    else:
        try:
            moment = parsedate_to_datetime(given)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            seconds = (moment - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_SECONDS)
