"""
`federation audit`: show, verify and resend the audit journal. Nothing here changes it.

Text that a caller could write into an event is shown on one line, with control characters
escaped, so that it cannot command the terminal or pass for another line.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import click
import httpx2

from federation.audit.delivery import NotDelivered, Webhook, trusting
from federation.audit.read import News, StoredEvent, batch_of, ends, last, time_of
from federation.audit.segments import parts, stored
from federation.audit.verify import check_journal
from federation.config import loopback, webhook_url
from federation.jose.jwk import KeySet, parse_key_set
from federation.jose.strict_json import loads_object
from federation.ownership import keeper_of
from federation.text import counted, printable
from federation.tokens.signing_keys import KeyFolder

_LOOK_SECONDS = 0.3
_TRIES = 3
_PAUSE_SECONDS = 0.5
_JWKS_BYTES = 256 * 1024
_JWKS_SECONDS = 15.0

_state = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".federation"),
    show_default=True,
    envvar="FEDERATION_STATE",
    help="The broker's state directory.",
)


@click.group()
def audit() -> None:
    """Read, verify and deliver again the audit trail in the state directory."""


@audit.command()
@_state
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="How many of the last events to show.",
)
@click.option("-f", "--follow", is_flag=True, help="Stay, and show events as they come.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text for people, json for programs: one object a line.",
)
def tail(state: Path, count: int, follow: bool, form: str) -> None:
    """Show the last events of all workers, by time."""
    show = _as_json if form == "json" else _as_text
    with _plain_errors():
        folders = _folders(state)
        news = [News(folder) for folder in folders]
        events = _by_time(last(folder, count) for folder in folders)[-count:] if count else []
        while True:
            for event in events:
                click.echo(show(event), color=_colours())
            if not follow:
                return
            time.sleep(_LOOK_SECONDS)
            events = _by_time(each.read() for each in news)


@audit.command()
@_state
@click.option(
    "--jwks",
    "places",
    multiple=True,
    metavar="FILE|URL",
    help="The broker's JWKS: a file, or an https URL (http on loopback). Repeat it for keys that"
    " were rotated out. Default: the signing keys in the state directory.",
)
@click.pass_context
def verify(context: click.Context, state: Path, places: tuple[str, ...]) -> None:
    """
    Check the journal against its seals.

    Exits with 1 and names the file if a closed segment was changed, cut, moved or removed.
    Segments that are not closed are not sealed yet: they get a note, and so does half a line that
    a killed process left, because it was never acknowledged.
    """
    with _plain_errors():
        folders, keys = _folders(state), _public_keys(state, places)
        checks = [check_journal(folder, keys) for folder in folders]
    for finding in chain.from_iterable(check.findings for check in checks):
        label = click.style("broken", fg="red", bold=True) if finding.broken else "note"
        click.echo(f"{finding.place}: {label}: {finding.message}", color=_colours())
    whole = all(check.whole for check in checks)
    events = sum(check.events for check in checks)
    segments = sum(check.segments for check in checks)
    verdict = "whole" if whole else "NOT whole"
    click.echo(f"{counted(events, 'event')} in {counted(segments, 'segment')}: {verdict}")
    context.exit(0 if whole else 1)


@audit.command()
@_state
@click.option("--webhook", required=True, help="URL to deliver to: https, or http on loopback.")
@click.option(
    "--secret",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the secret that signs.",
)
@click.option(
    "--header",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with one more header line, such as Authorization: Bearer …",
)
@click.option(
    "--ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file with the webhook's CA, where it is a private one.",
)
@click.option("--since", metavar="TIME", help="Only events since then, as 2030-01-31T09:00:00Z.")
def resend(  # noqa: PLR0917  click passes each option by its name
    state: Path,
    webhook: str,
    secret: Path | None,
    header: Path | None,
    ca: Path | None,
    since: str | None,
) -> None:
    """
    Deliver events again, at once.

    Receivers recognise an event that they have by its event_id. The broker's own delivery goes
    on, and nothing is deleted.
    """
    try:
        webhook_url(webhook)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--webhook") from error
    moment = _moment(since) if since else None
    with _plain_errors():
        trusting(ca)
        batches = chain.from_iterable(_batches(folder, moment) for folder in _folders(state))
        receiver = Webhook(webhook, secret=secret, header=header, ca=ca)
        sent = asyncio.run(_resend(batches, receiver))
    click.echo(f"{counted(sent, 'event')} delivered")


async def _resend(batches: Iterator[list[bytes]], webhook: Webhook) -> int:
    """Send all *batches*. Return how many events that were."""
    sent = 0
    try:
        for batch in batches:
            await _deliver(webhook, b"[" + b",".join(batch) + b"]", sent)
            sent += len(batch)
            latest = json.loads(batch[-1]).get("time")
            click.echo(f"{sent} delivered so far, up to {printable(str(latest))}", err=True)
    finally:
        await webhook.aclose()
    return sent


async def _deliver(webhook: Webhook, body: bytes, sent: int) -> None:
    delivery_id = str(uuid.uuid4())
    for attempt in range(_TRIES):
        try:
            return await webhook.post(body, delivery_id)
        except NotDelivered as refused:
            if attempt == _TRIES - 1:
                raise click.ClickException(
                    f"{webhook.host} did not take a batch: {refused};"
                    f" {counted(sent, 'event')} delivered before it"
                ) from refused
            await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)
    return None


def _batches(folder: Path, since: datetime | None) -> Iterator[list[bytes]]:
    """Yield the events since then in the order of the segments, some at a time."""
    for path, end in ends(stored(folder)).items():
        start = 0
        while batch := batch_of(path, start, end):
            start = batch.end
            if contents := [event for event in batch.contents if _is_since(event, since)]:
                yield contents


def _is_since(content: bytes, since: datetime | None) -> bool:
    """Return whether the event is not older; one without a readable time is not left out."""
    try:
        return not since or datetime.fromisoformat(str(json.loads(content).get("time"))) >= since
    except (ValueError, TypeError):
        return True


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no time like 2030-01-31T09:00:00Z", param_hint="--since"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _public_keys(state: Path, places: Sequence[str]) -> KeySet:
    """Return the keys at all *places*, or those of *state* if there are none."""
    try:
        if not places:
            return parse_key_set({**KeyFolder.under(state, keeper_of(state)).load().jwks()})
        return parse_key_set({"keys": [jwk for place in places for jwk in _jwks(place)]})
    except (ValueError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise click.ClickException(f"no public keys: {error}; set --jwks") from error


def _jwks(place: str) -> list[object]:
    """Read the keys of the JWKS at *place*, a file or a URL. Raises: ValueError."""
    if "://" in place:
        text = _fetched(httpx2.URL(place))
    else:
        with Path(place).open("rb") as file:
            text = file.read(_JWKS_BYTES + 1)
    if len(text) > _JWKS_BYTES:
        raise ValueError(f"{place} is larger than 256 KiB")
    keys = loads_object(text).get("keys")
    if not isinstance(keys, list):
        raise ValueError(f"{place} holds no JWKS")  # noqa: TRY004  one kind of error for bad input
    return keys


def _fetched(url: httpx2.URL) -> bytes:
    """Return the body at *url*, cut where it is too long. Raises: ValueError, httpx2.HTTPError."""
    # The answer decides which seals are believed, so nobody on the way may change it.
    if url.scheme != "https" and not (url.scheme == "http" and loopback(url.host)):
        raise ValueError("the URL of a JWKS must be https; http is for loopback addresses only")
    text, headers = b"", {"Accept-Encoding": "identity"}
    deadline = time.monotonic() + _JWKS_SECONDS
    with httpx2.stream(
        "GET", url, headers=headers, timeout=_JWKS_SECONDS, follow_redirects=False
    ) as response:
        if response.status_code != httpx2.codes.OK:
            raise ValueError(f"{url.host} answered {response.status_code}")
        for chunk in response.iter_raw():
            text += chunk
            if len(text) > _JWKS_BYTES:
                break
            if time.monotonic() > deadline:
                raise ValueError(f"{url.host} did not answer within {_JWKS_SECONDS:g} s")
    return text


def _folders(state: Path) -> tuple[Path, ...]:
    """Return the folders of the journal, of which the first has the events that are owed."""
    folder = state / "audit"
    if not folder.is_dir():
        raise click.ClickException(f"no audit journal under {state}; set --state")
    return parts(folder)


def _by_time(lists: Iterable[list[StoredEvent]]) -> list[StoredEvent]:
    return sorted(chain.from_iterable(lists), key=time_of)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn errors of the disk into one sentence and exit code 1."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _colours() -> bool | None:
    """Return False if NO_COLOR asks for it. With None, click colours only for a terminal."""
    return False if os.environ.get("NO_COLOR") else None


def _as_json(event: StoredEvent) -> str:
    return json.dumps(event, separators=(",", ":"))


def _as_text(event: StoredEvent) -> str:
    """Return time, status, subject and the facts that the event has, on one line."""
    status = event.get("response_code")
    good = isinstance(status, int) and status < 400
    actor = event.get("actor")
    who = actor.get("sub") if isinstance(actor, dict) else "-"
    named = ("reason", "actions", "namespace", "roles", "policies", "request_id", "custom_message")
    facts = [f"{name}={_plain(event[name])}" for name in named if event.get(name)]
    shown = click.style(_plain(status), fg="green" if good else "red")
    request = _plain(event.get("method")), _plain(event.get("path"))
    return " ".join([_plain(event.get("time")), shown, *request, _plain(who), *facts])


def _plain(value: object) -> str:
    """Return *value* with control characters escaped, in quotes if it has spaces."""
    if isinstance(value, list):
        return ",".join(_plain(item) for item in value)
    text = printable(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text else text
