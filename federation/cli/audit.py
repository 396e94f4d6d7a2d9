"""
`federation audit`: show, verify and resend the audit journal. Nothing here changes it.

`audit_events` has the commands that show events.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import click
import httpx2

from federation.audit.read import batch_of, ends
from federation.audit.segments import stored
from federation.audit.verify import check_journal
from federation.audit.webhook import NotDelivered, Webhook
from federation.cli.audit_events import folders_of, plain_errors, show, state_option, tail
from federation.cli.terminal import colours
from federation.config import loopback, read_outbound, webhook_url
from federation.jose.jwk import KeySet, parse_key_set
from federation.jose.strict_json import loads_object
from federation.outbound import trusting
from federation.outbound.failures import failure
from federation.ownership import keeper_of
from federation.text import counted, printable
from federation.tokens.signing_keys import KeyFolder

_TRIES = 3
_PAUSE_SECONDS = 0.5
_JWKS_BYTES = 256 * 1024
_JWKS_SECONDS = 15.0


@click.group()
def audit() -> None:
    """Read, search and verify the audit trail in the state directory, and deliver it again."""


for command in (tail, show):
    audit.add_command(command)


@audit.command()
@state_option
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
    with plain_errors():
        folders, keys = folders_of(state), _public_keys(state, places)
        checks = [check_journal(folder, keys) for folder in folders]
    for finding in chain.from_iterable(check.findings for check in checks):
        label = click.style("broken", fg="red", bold=True) if finding.broken else "note"
        click.echo(f"{finding.place}: {label}: {finding.message}", color=colours())
    whole = all(check.whole for check in checks)
    events = sum(check.events for check in checks)
    segments = sum(check.segments for check in checks)
    verdict = "whole" if whole else "NOT whole"
    click.echo(f"{counted(events, 'event')} in {counted(segments, 'segment')}: {verdict}")
    context.exit(0 if whole else 1)


@audit.command()
@state_option
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
    with plain_errors():
        outbound = read_outbound()
        if ca:
            trusting(ca)
        batches = chain.from_iterable(_batches(folder, moment) for folder in folders_of(state))
        receiver = Webhook(webhook, secret=secret, header=header, ca=ca, outbound=outbound)
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
        with suppress(FileNotFoundError):  # dropped since the listing
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
    except ValueError as error:
        raise click.ClickException(f"no public keys: {error}; set --jwks") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise click.ClickException(f"no public keys: {failure(error)}; set --jwks") from error


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
    with (
        read_outbound().client(timeout=httpx2.Timeout(_JWKS_SECONDS)) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if response.status_code != httpx2.codes.OK:
            raise ValueError(f"{url.host} answered {response.status_code}")
        for chunk in response.iter_raw():
            text += chunk
            if len(text) > _JWKS_BYTES:
                break
            if time.monotonic() > deadline:
                raise ValueError(f"{url.host} did not answer within {_JWKS_SECONDS:g} s")
    return text
