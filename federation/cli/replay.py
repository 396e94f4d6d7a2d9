"""
`federation replay`: decides what the audit trail recorded again, by other documents.

Callers worded much of what events say, so every text is printed on one line and without anything that
a terminal or a CI runner obeys.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import click
from click.core import ParameterSource

from federation.audit.delivered import events_in
from federation.audit.read import StoredEvent, in_order
from federation.cli.audit_events import folders_of, plain_errors, state_option
from federation.cli.documents import catalog_in, format_option
from federation.cli.terminal import colours
from federation.policy.replay import Change, Count, Difference, Kind
from federation.replayed.replay import Replay
from federation.text import counted, no_command, no_command_in_json, printable

_SHOWN_ROWS = 40
_SHOWN_KEPT_ROWS = 10
"""The rows of each kind of change that a person reads; JSON has them all."""
_TOLD_SECONDS = 0.5
_LEAST_COLUMNS, _MOST_COLUMNS = 60, 120
_DAYS = re.compile(r"([0-9]{1,5})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COLOURS = {Change.LOSES: "red", Change.GAINS: "green", Change.SHADOW: "yellow"}


def _since(_context: click.Context, _option: click.Parameter, given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        if match := _DAYS.fullmatch(given):
            return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        moment = datetime.fromisoformat(given)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{printable(given, 64)!r} is neither a time, such as 2030-01-31T09:00:00Z, nor as long"
            " ago as 30d, 12h or 90m"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command()
@click.option(
    "--against",
    "new",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    required=True,
    help="File or directory of the documents to decide by. Repeatable.",
)
@click.option(
    "--documents",
    "old",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="Compare with what these documents decide, instead of with what was recorded. Repeatable.",
)
@state_option
@click.option(
    "--events",
    type=click.File("rb"),
    help="Read a file of delivered events instead, - for standard input: JSON objects, one a line,"
    " or arrays of them.",
)
@click.option(
    "--since", callback=_since, help="Only events since a time, or since as long ago as 30d or 12h."
)
@click.option("--allow-loss", is_flag=True, help="Exit with 0 also if something would be refused.")
@format_option
@click.pass_context
def replay(
    context: click.Context,
    *,
    new: tuple[Path, ...],
    old: tuple[Path, ...],
    state: Path,
    events: BinaryIO | None,
    since: datetime | None,
    allow_loss: bool,
    output: str,
) -> None:
    """
    Decide recorded exchanges and requests again, by other documents.

    Shows who would lose or gain what, by Role and repository. Nothing is guessed: an event without
    the facts that decide is counted as undecided. Exit code 1 means that something that was granted
    would be refused.
    """
    if events and context.get_parameter_source("state") is ParameterSource.COMMANDLINE:
        raise click.UsageError("give either --state or --events")
    replayed = Replay(catalog_in(new), catalog_in(old) if old else None)
    with plain_errors():
        source = events_in(events) if events else in_order(folders_of(state))
        for event in _told(_recent(source, since)):
            replayed.add(event)
    if output == "json":
        click.echo(no_command_in_json(json.dumps(replayed.as_json(), indent=2)))
    else:
        _show(replayed)
    if replayed.unreadable and replayed.unreadable == replayed.events:  # surely another file
        raise click.ClickException(
            "nothing that was read is an event of the audit trail; give --events a file of"
            " delivered events, or --state"
        )
    sys.exit(1 if replayed.report.loss and not allow_loss else 0)


def _recent(
    events: Iterable[StoredEvent | None], since: datetime | None
) -> Iterator[StoredEvent | None]:
    """Yield the events that are not older. One without a readable time is not left out."""
    for event in events:
        if since is None or event is None or not _before(event, since):
            yield event


def _before(event: StoredEvent, since: datetime) -> bool:
    try:
        return datetime.fromisoformat(str(event.get("time"))) < since
    except (ValueError, TypeError):
        return False


def _told(events: Iterator[StoredEvent | None]) -> Iterator[StoredEvent | None]:
    """Yield *events*, and tell a person at a terminal how many there were so far."""
    if not sys.stderr.isatty():
        yield from events
        return
    told = time.monotonic()
    for number, event in enumerate(events, 1):
        if number % 512 == 0 and time.monotonic() - told > _TOLD_SECONDS:
            told = time.monotonic()
            click.echo(f"\r{number:,} events", nl=False, err=True)
        yield event
    click.echo("\r\033[K", nl=False, err=True)


def _show(replayed: Replay) -> None:
    report = replayed.report
    wide = shutil.get_terminal_size((_MOST_COLUMNS, 0)).columns  # a CI log has no width
    columns = min(max(wide, _LEAST_COLUMNS), _MOST_COLUMNS)
    _line(_read(replayed))
    for kind, totals in report.totals.items():
        if totals.decided:
            _line(
                f"{counted(totals.decided, kind)} decided again: {totals.lose} lose,"
                f" {totals.gain} gain, {totals.keep} keep, {totals.stay_refused} stay refused"
            )
    rows = report.sorted_rows()
    for change in Change:
        of_change = [row for row in rows if row[0].change is change]
        most = _SHOWN_KEPT_ROWS if change is Change.KEEPS else _SHOWN_ROWS
        for row in of_change[:most]:
            _show_row(*row, columns)
        if len(of_change) > most:
            _line("")
            _line(f"({len(of_change) - most} more of {change}; --format json has them all)")
    _line("")
    for line in _notes(replayed):
        _line(line)


def _read(replayed: Replay) -> str:
    if not replayed.events:
        return "There are no events."
    times = f", from {replayed.first} to {replayed.last}" if replayed.first else ""
    return counted(replayed.events - replayed.unreadable, "event") + times


def _show_row(row: Difference, count: Count, columns: int) -> None:
    label = click.style(f"{row.change:<8}", fg=_COLOURS.get(row.change), bold=True)
    number = counted(count.events, row.kind)
    left = columns - len(f"{row.change:<8}    {number}")
    role = printable(row.role or "(no Role)", max(12, left * 2 // 5))
    who = printable(row.who, max(12, left - len(role)))
    _line("")
    click.echo(label, nl=False, color=colours())
    _line(f"{role}  {who}  {number}")
    for detail in _details(row):
        _line("        " + printable(detail, columns - 8))
    if count.sample:
        sample = f"such as {count.sample.event_id}, {count.sample.time}"
        _line("        " + printable(sample, columns - 8))


def _details(row: Difference) -> Iterator[str]:
    if row.access:
        yield row.access
    match row:
        case Difference(change=Change.LOSES, refused=True):
            yield f"would be refused: {row.why}"
        case Difference(change=Change.GAINS, refused=True):
            yield f"was refused: {row.why}" if row.why else "was refused"
        case Difference(change=Change.SHADOW):
            yield "a shadow Role would have admitted it, and admits nobody"
    if row.shadow and row.change is Change.GAINS:
        yield "it was a shadow Role"
    if row.policies:
        yield f"policies {', '.join(row.policies)}"
    elif row.kind is Kind.EXCHANGE and not row.refused:
        match row.change:
            case Change.LOSES:
                yield "no policy is lost: other Roles give what it gave"
            case Change.GAINS:
                yield "no policy is new: other Roles gave what it gives"


def _notes(replayed: Replay) -> Iterator[str]:
    """Yield what was not decided again, and why."""
    report = replayed.report
    if not any(totals.decided for totals in report.totals.values()):
        yield "Nothing could be decided again."
    for why, count in sorted(report.undecided.items(), key=lambda each: -each[1].events):
        yield f"not decided, {counted(count.events, 'event')}: {why}"
    if report.left_out:
        left_out = ", ".join(f"{count.events} {why}" for why, count in report.left_out.items())
        yield f"left out, since documents do not decide them: {left_out}"
    if replayed.by_roles:
        yield (
            f"{counted(replayed.by_roles, 'request')} decided by the Roles that their tokens name,"
            " as if these admitted them still: their exchanges were not read or kept no claims"
        )
    if replayed.repeated:
        yield f"{counted(replayed.repeated, 'event')} came more than once"
    if replayed.unreadable:
        yield f"{counted(replayed.unreadable, 'line')} could not be read as events"
    if report.loss:
        yield "Something that was granted would be refused."


def _line(text: str) -> None:
    click.echo(no_command(text))
