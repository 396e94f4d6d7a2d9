"""
`federation doctor`: say what the broker would find on this machine, and what to do about it.

It takes the settings and variables of `serve`. Exit codes: 0 if an exchange would be answered,
also with warnings, 1 if not, 2 for wrong use.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeVar

import click

from federation.cli.setting_options import setting_options
from federation.config import read_outbound, read_settings, settings_reading
from federation.doctor.examine import examine, examine_without_settings
from federation.doctor.finding import (
    Finding,
    Word,
    exchanges_answered,
    fail,
    refused_settings,
    with_docs_at,
)
from federation.errors import SettingsRefused
from federation.logs import configure_logs
from federation.ownership import ROOT_UID, keeper_of
from federation.text import no_command_in_json, no_command_within

T = TypeVar("T")

_SECONDS = 5.0
_COLOURS = {Word.OK: "green", Word.WARN: "yellow", Word.FAIL: "red"}


@setting_options(settings_reading())
@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="Text for people, or one JSON object.",
)
def doctor(form: str, **flags: str | tuple[str, ...] | None) -> None:
    """
    Find what is wrong where the broker runs.

    Takes the settings and variables of `serve`, so run it where the broker runs, as the user that
    the broker runs as. It asks each issuer, the upstream, the shared state and the webhook, changes
    nothing, sends no event, and ends within half a minute. Exits with 1 if an exchange could not be
    answered.
    """
    configure_logs("text", "critical")  # what a check logs, its line says
    findings = _found(flags)
    answered = exchanges_answered(findings)
    if form == "json":
        click.echo(no_command_within(_as_json(findings, answered)))
    else:
        _show(findings, answered)
    _leave(0 if answered else 1)


def _found(flags: dict[str, str | tuple[str, ...] | None]) -> Sequence[Finding]:
    # A new loop that is not closed: closing would wait for a name server that hangs.
    return asyncio.new_event_loop().run_until_complete(_examined(flags))


async def _examined(flags: dict[str, str | tuple[str, ...] | None]) -> Sequence[Finding]:
    found: list[Finding] = []
    outbound, settings = None, None
    try:
        outbound = await _in_time(read_outbound)
    except SettingsRefused as refused:
        found += refused_settings(refused, "environment")
    try:
        settings = await _in_time(lambda: read_settings(flags))
    except SettingsRefused as refused:
        found = [*_other_user(flags, [*found, *refused_settings(refused)])]
        # Files that are not trusted say nothing against asking the other machines.
        with suppress(SettingsRefused):
            settings = await _in_time(lambda: read_settings(flags, check_files=False))
    if settings and outbound:
        found += await examine(settings, outbound, os.environ, files=not found)
    else:
        found += await examine_without_settings(outbound)
    return with_docs_at(settings.docs_url, found) if settings and settings.docs_url else found


async def _in_time(read: Callable[[], T]) -> T:
    """Return what *read* returns. It reads files, which may be on a disk that is away."""
    try:
        async with asyncio.timeout(_SECONDS):
            return await asyncio.to_thread(read)
    except TimeoutError as error:
        problem = f"a file could not be read within {_SECONDS:g} s; look at the disks and mounts"
        raise SettingsRefused([problem]) from error


def _other_user(
    flags: dict[str, str | tuple[str, ...] | None], found: Sequence[Finding]
) -> Sequence[Finding]:
    """Advise root to run this as the broker's user, and not to take the broker's files from it."""
    state = Path(str(flags.get("state") or os.environ.get("FEDERATION_STATE") or ".federation"))
    keeper = keeper_of(state)
    if os.geteuid() != ROOT_UID or keeper.uid == ROOT_UID:
        return found
    said = f"this runs as root, and {state} belongs to uid {keeper.uid}"
    advice = (
        "run it as the broker's user, with its variables:"
        f" sudo -E -u '#{keeper.uid}' federation doctor"
    )
    others = [each for each in found if "but this runs as uid 0" not in each.said]
    return [fail("process", said, advice), *others]


def _show(findings: Sequence[Finding], answered: bool) -> None:
    """Print one line a check, and one of advice below each that is wrong."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        word = f"{finding.word:<4}"
        if coloured:
            word = click.style(word, fg=_COLOURS[finding.word])
        _line(f"{word}  {finding.check:<{width}}  {finding.said}", coloured)
        if finding.advice:
            _line(f"{'':4}  {'':{width}}  -> {finding.advice}", coloured)
    bad = sum(finding.word is Word.FAIL for finding in findings)
    odd = sum(finding.word is Word.WARN for finding in findings)
    verdict = "an exchange would be answered" if answered else "an exchange could not be answered"
    _line(f"\n{bad} failed, {odd} with a warning: {verdict}", coloured)


def _line(line: str, coloured: bool) -> None:
    click.echo(no_command_within(line), color=coloured)


def _as_json(findings: Sequence[Finding], answered: bool) -> str:
    checks = [
        {
            "check": finding.check,
            "status": finding.word.value,
            "message": finding.said,
            "advice": finding.advice or None,
        }
        for finding in findings
    ]
    return no_command_in_json(
        json.dumps({"exchanges_answered": answered, "checks": checks}, indent=2)
    )


def _leave(code: int) -> NoReturn:
    """End now: threads that wait for a name server or a dead disk would keep the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
