"""
`federation explain`: shows what a token would be allowed, before the documents are live.

It reads the words, verifies the token or checks its claims, and prints the evaluation that
`explained` makes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import click

from federation.claims import Claims, UnverifiedClaims, shown
from federation.documents.catalog import Catalog
from federation.errors import Refusal
from federation.explained import explain_claims, explanation
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import check_signature, find_signer, verify
from federation.jose import jws, strict_json
from federation.policy.explain import Explanation
from federation.policy.permissions import Access
from federation.sources.files import load
from federation.text import no_command

_FILE_BYTES = 1024 * 1024


@click.command()
@click.option(
    "--documents",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    required=True,
    help="File or directory of documents; may be given more than once.",
)
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
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For a person or for a program.",
)
def explain(
    documents: tuple[Path, ...],
    token: BinaryIO | None,
    claims: BinaryIO | None,
    asked: tuple[str, ...],
    output: str,
) -> None:
    """
    Show what a token would be allowed, and why.

    Which Roles admit it, condition by condition, with the expected values beside the token's;
    which policies follow; what each access decides and by which statement. Exit code 0 means
    admitted and every access allowed, 1 means no.
    """
    given = token or claims
    if given is None or (token and claims):
        raise click.UsageError("give either --token or --claims")
    accesses = [_access(text) for text in asked]
    assembled = load(documents)
    if assembled.catalog is None:
        for problem in assembled.problems:
            click.echo(no_command(str(problem)), err=True)
        raise click.ClickException("the documents have errors")
    text = _read(given)
    if token:
        found = asyncio.run(_of_token(assembled.catalog, text, accesses))
    else:
        unverified = _claims(text)
        found = explain_claims(assembled.catalog, unverified, accesses, now=time.time())
    if output == "json":
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        _show(found)
    sys.exit(0 if found.yes else 1)


async def _of_token(catalog: Catalog, text: str, accesses: Sequence[Access]) -> Explanation:
    """The explanation of the token *text*, with its signature and times verified."""
    keys, claims, refusal = KeyRing(), Claims({}), None
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
    action, equals, resource = text.partition("=")
    try:
        if not equals:
            raise ValueError(f"{text!r} is not ACTION=RESOURCE")
        return Access.parse(action, resource)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--access") from error


def _claims(text: str) -> UnverifiedClaims:
    try:
        return UnverifiedClaims(strict_json.loads_object(text.encode()))
    except ValueError as error:
        raise click.BadParameter(f"not a JSON object: {error}", param_hint="--claims") from error


def _read(file: BinaryIO) -> str:
    try:
        return file.read(_FILE_BYTES).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise click.BadParameter("the file is not UTF-8 text") from error


def _show(explanation: Explanation) -> None:
    yes, no = click.style("yes", fg="green"), click.style("no ", fg="red")
    if explanation.refusal:
        click.echo(f"token     {no}  {explanation.refusal.reason}: {explanation.refusal.public}")
        for fact, value in explanation.refusal.evidence.items():
            # A stranger may have written the token, with characters that move the cursor.
            safe = shown(list(value) if isinstance(value, tuple) else value)
            click.echo(f"               {fact}: {safe}")
    click.echo(f"admitted  {yes if explanation.admitted else no}")
    for evaluation in explanation.evaluations:
        click.echo(
            f"\nRole {click.style(evaluation.role.name, bold=True)}  {yes if evaluation.admits else no}"
        )
        for finding in evaluation.findings:
            condition = finding.condition
            click.echo(f"  {yes if finding.holds else no}  {condition.operator} {condition.key}")
            if not finding.holds:
                click.echo(f"         expected  {' | '.join(map(shown, condition.values))}")
                click.echo(f"         got       {shown(finding.claim)}")
        for demand in evaluation.unmet:
            click.echo(f"  {no}  {demand.sentence}")
    if explanation.policies:
        click.echo(f"\npolicies  {', '.join(explanation.policies)}")
    if explanation.decisions:
        click.echo("")
    for decision in explanation.decisions:
        by = "nothing matches"
        if decision.policy:
            by = f"{decision.effect} {decision.policy}/{decision.sid}"
        access = f"{decision.access.action}={decision.access.resource}"
        click.echo(f"{yes if decision.allowed else no}  {access}  ({by})")
