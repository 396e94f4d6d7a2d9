"""`federation whoami`: who is signed in to a gateway, and what that allows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import click

from federation.cli.people import (
    gateway_named,
    gateway_option,
    notice,
    own_sessions,
    renew_faas_cli,
    told_errors,
    until,
)
from federation.client.http import Sender
from federation.jose.strict_json import dumps_ascii
from federation.sign_on.live import live_session
from federation.sign_on.sessions import Session
from federation.sign_on.whoami import Answer, ask
from federation.text import printable

_MIN_LIFE_SECONDS = 10.0


@click.command()
@gateway_option
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: what the gateway answers, for programs.",
)
def whoami(*, gateway: str | None, output: str) -> None:
    """
    Show who you are to a gateway, your roles and policies, and what they allow.

    The gateway itself is asked. The exit code is 1 if you are not signed in, or if your session is
    over.
    """
    with told_errors():
        sessions = own_sessions()
        named = gateway_named(gateway, sessions)
        session = live_session(sessions, named, _MIN_LIFE_SECONDS, time.time, notice)
        renew_faas_cli(session, sessions)
        with Sender(tell=notice) as sender:
            answer = ask(session, sender)
    if output == "json":
        click.echo(dumps_ascii(dict(answer.told)).decode("ascii"))
        return
    for line in _lines(session, answer):
        click.echo(printable(line))


def _lines(session: Session, answer: Answer) -> Iterator[str]:
    told = answer.told
    yield f"{session.person}"
    yield f"  subject   {_text(told.get('sub'))}"
    yield f"  gateway   {session.gateway}"
    yield f"  provider  {_text(told.get('fed_issuer')) or session.issuer}"
    yield f"  roles     {_listed(told.get('roles'))}"
    yield f"  policies  {_listed(told.get('policies'))}"
    if missing := told.get("policies_missing"):
        yield f"  missing   {_listed(missing)}: until the operator restores it, nothing is allowed"
    yield f"  until     {until(session.access_expires, time.time())}"
    yield ""
    if not answer.by_gateway:
        yield "This is what your token says. The gateway is of a version that does not tell more."
        return
    rows = _rows(told.get("statements"))
    if not rows:
        yield "Your policies allow nothing."
    for row in rows:
        yield from _statement(row)


def _statement(row: Mapping[str, object]) -> Iterator[str]:
    held = "" if row.get("applies", True) else "  (not for you: its conditions do not hold)"
    yield f"{_text(row.get('effect'))} {_text(row.get('policy'))}/{_text(row.get('sid'))}{held}"
    yield f"  {_listed(row.get('actions'))}"
    yield f"  on {_listed(row.get('resources'))}"
    for condition in _rows(row.get("conditions")):
        yield (
            f"  if {_text(condition.get('operator'))} {_text(condition.get('key'))}:"
            f" {_listed(condition.get('values'))}"
        )


def _rows(value: object) -> list[Mapping[str, object]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _listed(value: object) -> str:
    if isinstance(value, str):
        return value
    return ", ".join(map(str, value)) if isinstance(value, list) and value else "none"
