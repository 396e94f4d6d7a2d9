"""
`federation audit`: the journal, read by people.

What a caller could write into an event is shown on one line, with nothing in it that a
terminal would obey. Nothing here changes the journal.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from federation.audit.delivery import NotDelivered, Webhook, trusting
from federation.audit.read import (
    BATCH_BYTES,
    BATCH_EVENTS,
    Event,
    News,
    ends,
    events,
    examine,
    last,
)
from federation.audit.segments import stored
from federation.config import webhook_url
from federation.text import counted, printable

__all__ = ["audit"]

_LOOK_SECONDS = 0.3
_TRIES = 3
_PAUSE_SECONDS = 0.5

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
    with _told_plainly():
        folder = _folder(state)
        news = News(folder)
        _show(map(show, last(folder, count)))
        while follow:
            time.sleep(_LOOK_SECONDS)
            _show(map(show, news.read()))


@audit.command()
@_state
@click.pass_context
def verify(context: click.Context, state: Path) -> None:
    """
    See whether any event was changed or taken out.

    Exits with 1 and names file and line where one was. The half of a line that a killed process
    left is told, and is no fault: it was never acknowledged.
    """
    with _told_plainly():
        report = examine(_folder(state))
    for finding in report.findings:
        label = click.style("broken", fg="red", bold=True) if finding.broken else "note"
        click.echo(f"{finding.path}:{finding.line}: {label}: {finding.message}", color=_colours())
    verdict = "whole" if report.whole else "NOT whole"
    click.echo(
        f"{counted(report.events, 'event')} in {counted(report.segments, 'segment')}: {verdict}"
    )
    context.exit(0 if report.whole else 1)


@audit.command()
@_state
@click.option("--webhook", required=True, help="URL to deliver to: https, or http on loopback.")
@click.option(
    "--secret",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File with the secret that signs.",
)
@click.option(
    "--ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file with the webhook's CA, where it is a private one.",
)
@click.option("--since", metavar="TIME", help="Only events since then, as 2030-01-31T09:00:00Z.")
def resend(
    state: Path, webhook: str, secret: Path | None, ca: Path | None, since: str | None
) -> None:
    """
    Deliver events again, at once.

    Receivers know an event that they have by its event_id. The broker's own delivery goes on
    as if nothing had happened, and nothing is deleted.
    """
    try:
        webhook_url(webhook)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--webhook") from error
    moment = _moment(since) if since else None
    with _told_plainly():
        trusting(ca)
        batches = _batches(_folder(state), moment)
        sent = asyncio.run(_resend(batches, Webhook(webhook, secret=secret, ca=ca)))
    click.echo(f"{counted(sent, 'event')} delivered")


async def _resend(batches: Iterator[list[Event]], webhook: Webhook) -> int:
    """How many events of *batches* the webhook took, which is all of them."""
    sent = 0
    try:
        for batch in batches:
            body = json.dumps(batch, separators=(",", ":")).encode()
            await _deliver(webhook, body, str(uuid.uuid4()), sent)
            sent += len(batch)
            click.echo(f"{sent} delivered so far, up to {batch[-1].get('time')}", err=True)
    finally:
        await webhook.aclose()
    return sent


async def _deliver(webhook: Webhook, body: bytes, delivery_id: str, sent: int) -> None:
    for attempt in range(_TRIES):
        try:
            await webhook.post(body, delivery_id)
        except NotDelivered as refused:
            if attempt == _TRIES - 1:
                raise click.ClickException(
                    f"{webhook.host} did not take a batch: {refused};"
                    f" {counted(sent, 'event')} delivered before it"
                ) from refused
            await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)
        else:
            return


def _batches(folder: Path, since: datetime | None) -> Iterator[list[Event]]:
    """The events since then in the order of the segments, some at a time."""
    batch: list[Event] = []
    size = 0
    segments = stored(folder)
    counted = ends(segments)
    for segment in segments:
        for line, event in events(segment.path, 0, counted[segment.path]):
            if since and not _is_since(event, since):
                continue
            if batch and (len(batch) == BATCH_EVENTS or size + len(line.text) > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(event)
            size += len(line.text)
    if batch:
        yield batch


def _is_since(event: Event, since: datetime) -> bool:
    try:
        return datetime.fromisoformat(str(event.get("time"))) >= since
    except ValueError:
        return True


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no time like 2030-01-31T09:00:00Z", param_hint="--since"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _folder(state: Path) -> Path:
    folder = state / "audit"
    if not folder.is_dir():
        raise click.ClickException(f"no audit journal under {state}; set --state")
    return folder


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Errors of the disk become one sentence and exit code 1."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _show(written: Iterator[str]) -> None:
    for line in written:
        click.echo(line, color=_colours())


def _colours() -> bool | None:
    """None lets the terminal decide."""
    return False if os.environ.get("NO_COLOR") else None


def _as_json(event: Event) -> str:
    return json.dumps(event, separators=(",", ":"))


def _as_text(event: Event) -> str:
    """When, how it ended, who, what, and why not, on one line."""
    status = event.get("response_code")
    good = isinstance(status, int) and status < 400
    actor = event.get("actor")
    who = actor.get("sub") if isinstance(actor, dict) else "-"
    named = ("reason", "actions", "namespace", "roles", "policies", "request_id", "custom_message")
    facts = [f"{name}={_plain(event[name])}" for name in named if event.get(name)]
    return " ".join(
        [
            _plain(event.get("time")),
            click.style(_plain(status), fg="green" if good else "red"),
            _plain(event.get("method")),
            _plain(event.get("path")),
            _plain(who),
            *facts,
        ]
    )


def _plain(value: object) -> str:
    """*value* with whatever is not meant to be seen as an escape; with spaces, in quotes."""
    if isinstance(value, list):
        return ",".join(_plain(item) for item in value)
    text = printable(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text else text
