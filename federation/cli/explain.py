"""
`federation explain`: shows what a token would be allowed, before the documents are live.

With a code in place of a token, it prints the section of the docs about it, without the network.
It reads the words, verifies the token or checks its claims, and prints the evaluation that
`explained` makes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click

from federation.claims import Claims, shown
from federation.cli.claims_file import claims_in, text_of, token_in
from federation.cli.documents import (
    catalog_in,
    documents_of_setting,
    documents_option,
    format_option,
)
from federation.cli.manual import about, codes, for_terminal, mentioning
from federation.client.docs import page_at
from federation.config import read_outbound
from federation.documents.asked import access_in, wider_than_a_request
from federation.documents.catalog import Catalog
from federation.errors import Refusal, SettingsRefused
from federation.explained import explain_claims, explanation
from federation.issuers.fetch import open_client
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import check_signature, find_signer, verify
from federation.jose import jws
from federation.outbound import Outbound
from federation.policy.explain import Explanation, Filled
from federation.policy.permissions import Access, Decision
from federation.policy.roles import Evaluation
from federation.text import nearest, no_command, no_command_in_json, printable, quoted

_SECTIONS = 3
_WORD_CHARS = 8
"""Shorter words stand in too many sections."""


@click.command()
@click.argument("code", required=False)
@documents_option
@click.option(
    "--token",
    type=click.File("rb"),
    help="File with a subject token, - for standard input. It is verified; keys are pinned or fetched.",
)
@click.option(
    "--claims",
    type=click.File("rb"),
    help="File with a token's claims as JSON, - for standard input. Offline: no signature, no clock.",
)
@click.option(
    "--access",
    "asked",
    multiple=True,
    metavar="ACTION=RESOURCE",
    help="Also decide this access, for example Function:Create=dev:figlet.",
)
@format_option
def explain(  # noqa: PLR0917  click passes them by name
    code: str | None,
    documents: tuple[Path, ...],
    token: BinaryIO | None,
    claims: BinaryIO | None,
    asked: tuple[str, ...],
    output: str,
) -> None:
    """
    Show what a token would be allowed, and why; or what a CODE of a message means.

    CODE is that of a problem in documents, such as T002, the reason of a refusal, such as expired,
    or words of a message. It is looked up in the docs, which are in the package.

    With a token or claims: which Roles admit it, condition by condition, with the expected values beside the token's;
    which policies follow; what each access decides and by which statement. Exit code 0 means
    admitted and every access allowed, 1 means no.
    """
    if code is not None:
        if documents or token or claims or asked or output != "text":
            raise click.UsageError("give either CODE or a token, without other options")
        _print_section(code)
        return
    given = token or claims
    if given is None or (token and claims):
        raise click.UsageError("give either --token or --claims, or the CODE of a message")
    accesses = [_access(text) for text in asked]
    catalog = catalog_in(documents or documents_of_setting())
    text = text_of(given)
    if token:
        try:
            outbound = read_outbound()
        except SettingsRefused as refused:
            raise click.ClickException(str(refused)) from refused
        found = asyncio.run(_of_token(catalog, token_in(text), accesses, outbound))
    else:
        found = explain_claims(catalog, claims_in(text), accesses, now=time.time())
    if output == "json":
        click.echo(no_command_in_json(json.dumps(found.as_json(), indent=2)))
    else:
        show_explanation(found)
    sys.exit(0 if found.yes else 1)


async def _of_token(
    catalog: Catalog, text: str, accesses: Sequence[Access], outbound: Outbound
) -> Explanation:
    """The explanation of the token *text*, with its signature and times verified."""
    keys = KeyRing(partial(open_client, outbound=outbound))
    claims, refusal = Claims({}), None
    try:
        token = jws.parse(text)
        claims = Claims(token.claims)
        signer = await find_signer(token, catalog.issuers, keys)
        verify(check_signature(token, signer), time.time())
    except Refusal as no:
        refusal = no
    finally:
        await keys.aclose()
    return explanation(catalog, claims, accesses, refusal, verified=True, now=time.time())


def _access(text: str) -> Access:
    try:
        return access_in(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--access") from error


def _print_section(code: str) -> None:
    """Print what the docs say about *code*, and where they say it."""
    try:
        section = about(code)
        if section is None and Path(code).is_file():
            raise click.UsageError(f"{printable(code)} is a file; give it with --claims or --token")
        found = [section] if section else mentioning(code) if len(code) >= _WORD_CHARS else []
    except OSError as error:
        raise click.ClickException(f"{error}; install the package anew") from error
    if not found:
        near = nearest(code, codes())
        meant = f"did you mean {near}?" if near else "codes are like T002, W101, D005 or expired"
        raise click.ClickException(f"no message has the code or words {quoted(code)}; {meant}")
    for number, one in enumerate(found[:_SECTIONS]):
        click.echo(("\n" if number else "") + for_terminal(one))
        click.echo(f"\n{page_at(one.page, os.environ)}")
    if len(found) > _SECTIONS:
        click.echo(f"\n{len(found) - _SECTIONS} more sections hold these words; give more of them")


def show_explanation(explanation: Explanation) -> None:
    """Print *explanation* for a person."""
    if explanation.refusal:
        _show_refusal(explanation.refusal)
    click.echo(f"admitted  {_mark(explanation.admitted)}")
    for evaluation in explanation.evaluations:
        _show_role(evaluation, _mark(evaluation.admits))
    for shadow in explanation.shadows:
        would = "would admit" if explanation.would_admit(shadow) else "would not admit either"
        _show_role(shadow, _mark(False), f"a shadow Role: it admits nobody, and {would}")
    if explanation.policies:
        click.echo(f"\npolicies  {', '.join(explanation.policies)}")
    if explanation.decisions:
        click.echo("")
    for decision, filled in explanation.settled:
        _show_decision(decision)
        for each in filled:
            _show_filled(each)


def _mark(holds: bool) -> str:
    return click.style("yes", fg="green") if holds else click.style("no ", fg="red")


def _show_refusal(refusal: Refusal) -> None:
    """Print why the token is refused, with the evidence."""
    click.echo(f"token     {_mark(False)}  {refusal.reason}: {refusal.public}")
    for fact, value in refusal.evidence.items():
        # A stranger may have written the token, with characters that move the cursor.
        safe = shown(list(value) if isinstance(value, tuple) else value)
        click.echo(f"               {fact}: {safe}")


def _show_role(evaluation: Evaluation, mark: str, note: str = "") -> None:
    """Print each condition of a Role, and of those that do not hold what the token has instead."""
    click.echo(f"\nRole {click.style(evaluation.role.name, bold=True)}  {mark}")
    if note:
        click.echo(f"  {note}")
    for finding in evaluation.findings:
        condition = finding.condition
        click.echo(f"  {_mark(finding.holds)}  {condition.operator} {printable(condition.key)}")
        if not finding.holds:
            click.echo(f"         expected  {' | '.join(map(shown, condition.values))}")
            click.echo(f"         got       {shown(finding.claim)}")
    for demand in evaluation.unmet:
        click.echo(f"  {_mark(False)}  {demand.sentence}")


def _show_decision(decision: Decision) -> None:
    """Print whether an access is allowed, and by which statement."""
    by = f"{decision.effect} {decision.policy}/{decision.sid}" if decision.policy else ""
    access = f"{decision.access.action}={decision.access.resource}"
    click.echo(f"{_mark(decision.allowed)}  {access}  ({by or 'nothing matches'})")
    if not decision.policy and (wider := wider_than_a_request(decision.access)):
        click.echo(f"     {wider}")


def _show_filled(filled: Filled) -> None:
    """Print what a resource became, and the claims that made it so."""
    became = f"became {filled.became}" if filled.became else "matches nothing"
    claims = ", ".join(f"{written} is {claim}" for written, claim in filled.claims.items())
    named = f"{filled.policy}/{filled.statement.sid}"
    line = no_command(f"{named}: {filled.resource.text} {became}, as {claims}")
    click.echo(f"     {line}")
