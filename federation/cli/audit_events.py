"""
`federation audit tail` and `federation audit show`: the events of the journal, for people.

Text that a caller could write into an event is shown on one line, with control characters
escaped, so that it cannot command the terminal or pass for another line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import click

from federation.audit.pages import Cursor, page, search
from federation.audit.read import News, StoredEvent, last, time_of
from federation.audit.recorded import may_name_shadow_role
from federation.audit.segments import parts
from federation.cli.audit_story import story_as_json, story_of, tell
from federation.cli.documents import DOCUMENTS_VARIABLE, catalog_in, documents_of_setting
from federation.cli.terminal import colours
from federation.errors import Reason, SettingsRefused
from federation.outbound import OutboundError
from federation.ownership import fault
from federation.text import did_you_mean, printable

_LOOK_SECONDS = 0.3
_PAGE_EVENTS = 200
_SHOWN_EVENTS = 20

_FACTS = (
    *("reason", "actions", "namespace", "roles", "policies", "shadow_roles", "shadow_policies"),
    *("request_id", "custom_message"),
)

Wanted = Callable[[StoredEvent], bool]

state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".federation"),
    show_default=True,
    envvar="FEDERATION_STATE",
    help="The broker's state directory. [FEDERATION_STATE]",
)
_format = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text for people, json for programs: one object a line.",
)


def _reason(_context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    """Check that *given* is a reason, since a slip would look like a trail without such events."""
    if given is not None and given not in set(Reason):
        raise click.BadParameter(f"there is no reason {given!r}; {did_you_mean(given, Reason)}")
    return given


@click.command()
@state_option
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
@click.option("--request-id", help="Only the events of this request.")
@click.option(
    "--reason", callback=_reason, help="Only refusals for this reason, such as no_role_admits."
)
@click.option(
    "--shadow", is_flag=True, help="Only exchanges that a shadow Role would have admitted."
)
@click.option(
    "--shadow-role",
    metavar="NAME",
    help="Only exchanges that this shadow Role would have admitted.",
)
@_format
def tail(
    *,
    state: Path,
    count: int,
    follow: bool,
    request_id: str | None,
    reason: str | None,
    shadow: bool,
    shadow_role: str | None,
    form: str,
) -> None:
    """Show the last events of all workers, by time."""
    show_line = _as_json if form == "json" else _as_text
    filters = {"request_id": request_id, "reason": reason}
    sought = {name: value for name, value in filters.items() if value is not None}
    filtered = bool(sought or shadow or shadow_role is not None)

    def wanted(event: StoredEvent) -> bool:
        return (
            all(event.get(name) == value for name, value in sought.items())
            and (not shadow or bool(event.get("shadow_roles")))
            and (shadow_role is None or may_name_shadow_role(event, shadow_role))
        )

    with plain_errors():
        folders = folders_of(state)
        news = [News(folder) for folder in folders]
        events = _last_of(state, folders, count, wanted if filtered else None)
        while True:
            for event in events:
                if wanted(event):
                    click.echo(show_line(event), color=colours())
            if not follow:
                return
            time.sleep(_LOOK_SECONDS)
            events = _by_time(each.read() for each in news)


@click.command()
@click.argument("identifier", metavar="ID")
@state_option
@click.option(
    "--documents",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="Also explain each event by the documents in this file or directory, if it keeps the"
    f" claims. Repeatable. Default: the setting documents, from {DOCUMENTS_VARIABLE}.",
)
@_format
def show(identifier: str, state: Path, documents: tuple[Path, ...], form: str) -> None:
    """
    Show all that the trail knows about the event or the request ID.

    A refusal says what each Role expected beside what the token had, at that time. With the
    documents it is also explained by those of now, as `federation explain` does. Exit code 1 means
    that the trail has no such event.
    """
    if not documents and os.environ.get(DOCUMENTS_VARIABLE):
        documents = documents_of_setting()
    catalog = catalog_in(documents) if documents else None
    with plain_errors():
        folders_of(state)
        found = _found(state / "audit", identifier)
    if not found:
        raise click.ClickException(
            f"the trail under {state} has no event or request {printable(identifier, 128)!r}. Each"
            " replica has a trail of its own, and the oldest events are deleted when the room for"
            " them is full. Requests without a good token make no event: the log has them."
        )
    for event in found:
        story = story_of(event, catalog, time.time())
        if form == "json":
            click.echo(json.dumps(story_as_json(story), separators=(",", ":")))
        else:
            tell(story, colours())
    sys.exit(0)


def folders_of(state: Path) -> tuple[Path, ...]:
    """Return the folders of the journal, of which the first has the events that are owed."""
    folder = state / "audit"
    if not folder.is_dir():
        raise click.ClickException(f"no audit journal under {state}; set --state")
    return parts(folder)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn errors of the disk into one sentence and exit code 1."""
    try:
        yield
    except BrokenPipeError:
        raise
    except PermissionError as error:
        raise click.ClickException(
            f"{error.filename} may not be read by this user; run the command as the user that the"
            " state belongs to, or as root"
        ) from error
    except OSError as error:
        raise click.ClickException(fault(error)) from error
    except (OutboundError, SettingsRefused) as error:
        raise click.ClickException(str(error)) from error


def _found(folder: Path, identifier: str) -> list[StoredEvent]:
    """Return the event with the id *identifier*, or the events of that request, by time."""
    for event in search(folder, "event_id", identifier):
        return [event]
    events: list[StoredEvent] = []
    for event in search(folder, "request_id", identifier):
        events.append(event)
        if len(events) == _SHOWN_EVENTS:  # a proxy that gives every request the same id
            break
    return sorted(events, key=time_of)


def _last_of(
    state: Path, folders: Iterable[Path], count: int, wanted: Wanted | None
) -> list[StoredEvent]:
    """Return the last *count* events, or those that are *wanted*, by time."""
    if not count:
        return []
    if wanted is None:
        return _by_time(last(folder, count) for folder in folders)[-count:]
    found: list[StoredEvent] = []
    cursor: Cursor | None = Cursor("")
    while cursor is not None and len(found) < count:
        limit = min(_PAGE_EVENTS, count - len(found))
        events, after = page(state / "audit", cursor, limit, wanted)
        found += events
        cursor = Cursor.of(after, "") if after else None
    found.reverse()  # so that events of one time stay in the order of recording
    return sorted(found, key=time_of)


def _by_time(lists: Iterable[list[StoredEvent]]) -> list[StoredEvent]:
    return sorted(chain.from_iterable(lists), key=time_of)


def _as_json(event: StoredEvent) -> str:
    return json.dumps(event, separators=(",", ":"))


def _as_text(event: StoredEvent) -> str:
    """Return time, status, subject and the facts that the event has, on one line."""
    status = event.get("response_code")
    good = isinstance(status, int) and status < 400
    actor = event.get("actor")
    who = actor.get("sub") if isinstance(actor, dict) else "-"
    facts = [f"{name}={_plain(event[name])}" for name in _FACTS if event.get(name)]
    shown = click.style(_plain(status), fg="green" if good else "red")
    request = _plain(event.get("method")), _plain(event.get("path"))
    return " ".join([_plain(event.get("time")), shown, *request, _plain(who), *facts])


def _plain(value: object) -> str:
    """Return *value* with control characters escaped, in quotes if it has spaces."""
    if isinstance(value, list):
        return ",".join(_plain(item) for item in value)
    text = printable(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text else text
