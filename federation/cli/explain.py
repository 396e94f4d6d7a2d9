"""
`federation explain`: what a token would be allowed, before it is live.

It shows the broker's own evaluation: the same Roles, findings and decisions that an exchange
goes through. It takes the operator's part, so expected values are shown beside the token's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click

from federation.claims import Claims, UnverifiedClaims, shown
from federation.documents.catalog import Catalog
from federation.documents.model import JwtIssuer
from federation.errors import Refusal
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import check_claims, trusted_issuer, verify
from federation.jose import jws, strict_json
from federation.policy.permissions import Access, Decision, decide
from federation.policy.roles import Admission, Evaluation, evaluate
from federation.providers.table import Provider
from federation.sources.files import load
from federation.tokens.mint import access_claims

__all__ = ["Explanation", "explain", "of_claims", "of_token"]

_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer, for a person or a program."""

    token: Mapping[str, object] | None
    refusal: Refusal | None
    evaluations: tuple[Evaluation, ...]
    policies: tuple[str, ...]
    decisions: tuple[Decision, ...]

    @property
    def admitted(self) -> bool:
        """Whether an exchange would be granted."""
        return self.refusal is None and any(e.admits for e in self.evaluations)

    @property
    def yes(self) -> bool:
        """Whether the token is admitted and every access asked about is allowed."""
        return self.admitted and all(decision.allowed for decision in self.decisions)

    def as_json(self) -> dict[str, object]:
        """The shape that programs read."""
        return {
            "token": self.token,
            "admitted": self.admitted,
            "roles": [self._role(evaluation) for evaluation in self.evaluations],
            "policies": list(self.policies),
            "access": [
                {
                    "action": decision.access.action,
                    "resource": decision.access.resource,
                    "allowed": decision.allowed,
                    "policy": decision.policy,
                    "sid": decision.sid,
                    "effect": decision.effect,
                }
                for decision in self.decisions
            ],
        }

    def _role(self, evaluation: Evaluation) -> dict[str, object]:
        refusal = self.refusal.reason if self.refusal else evaluation.refusal
        return {
            "name": evaluation.role.name,
            "admitted": refusal is None,
            "conditions": [
                {
                    "operator": finding.condition.operator,
                    "key": finding.condition.key,
                    "values": list(finding.condition.values),
                    "claim": finding.claim,
                    "holds": finding.holds,
                }
                for finding in evaluation.findings
            ],
            "refusal": refusal,
        }


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
            click.echo(str(problem), err=True)
        raise click.ClickException("the documents have errors")
    explanation = (
        asyncio.run(of_token(assembled.catalog, _read(given), accesses))
        if token
        else of_claims(assembled.catalog, _claims(_read(given)), accesses)
    )
    if output == "json":
        click.echo(json.dumps(explanation.as_json(), indent=2))
    else:
        _show(explanation)
    sys.exit(0 if explanation.yes else 1)


async def of_token(catalog: Catalog, text: str, accesses: Sequence[Access]) -> Explanation:
    """What the exchange of the token *text* would come to, its signature and times verified."""
    keys = KeyRing()
    try:
        token = jws.parse(text)
        try:
            verified = await verify(token, catalog.issuers, keys, time.time())
        except Refusal as refusal:
            return _explanation(catalog, Claims(token.claims), refusal, accesses, offline=False)
        return _explanation(catalog, verified.claims, None, accesses, offline=False)
    except Refusal as malformed:
        return _explanation(catalog, Claims({}), malformed, accesses, offline=False)
    finally:
        await keys.aclose()


def of_claims(
    catalog: Catalog, unverified: UnverifiedClaims, accesses: Sequence[Access]
) -> Explanation:
    """What a token that says this would come to, if it were signed and in time."""
    claims = Claims(unverified)
    try:
        check_claims(trusted_issuer(unverified, catalog.issuers), unverified, now=None)
    except Refusal as refusal:
        return _explanation(catalog, claims, refusal, accesses, offline=True)
    return _explanation(catalog, claims, None, accesses, offline=True)


def _explanation(
    catalog: Catalog,
    claims: Claims,
    refusal: Refusal | None,
    accesses: Sequence[Access],
    *,
    offline: bool,
) -> Explanation:
    issuer = catalog.issuers.get(str(claims.get("iss")))
    evaluations = evaluate(catalog.roles, issuer.provider if issuer else Provider.GENERIC, claims)
    admitting = tuple(e.role for e in evaluations if e.admits)
    if refusal or issuer is None or not admitting:
        decisions = tuple(Decision(access, allowed=False) for access in accesses)
        policies: tuple[str, ...] = ()
    else:
        admission = Admission.of(issuer, admitting)
        policies = admission.policies
        decisions = _decisions(catalog, claims, admission, accesses)
    return Explanation(
        token=None if offline and refusal is None else _verdict(refusal),
        refusal=refusal,
        evaluations=evaluations,
        policies=policies,
        decisions=decisions,
    )


def _decisions(
    catalog: Catalog, claims: Claims, admission: Admission, accesses: Sequence[Access]
) -> tuple[Decision, ...]:
    """Each access as a token minted for *claims* would be decided, by the same claims it has."""
    broker_url = first_audience(admission.issuer, claims)
    access_token = access_claims(
        claims, admission, issuer_url=broker_url, now=time.time(), jti="explained"
    )
    policies = catalog.policies_of(admission.policies)
    return tuple(decide(policies, access, access_token) for access in accesses)


def first_audience(issuer: JwtIssuer, claims: Claims) -> str:
    """The broker's URL as the token knows it: its audience, which is the broker itself."""
    audience = claims.get("aud")
    given = audience if isinstance(audience, list) else [audience]
    return next((a for a in given if a in issuer.audiences), issuer.audiences[0])


def _verdict(refusal: Refusal | None) -> Mapping[str, object]:
    return {"valid": refusal is None, "reason": refusal.reason if refusal else None}


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
    """The explanation for a person: verdict first, then the evidence."""
    yes, no = click.style("yes", fg="green"), click.style("no ", fg="red")
    if explanation.refusal:
        click.echo(f"token     {no}  {explanation.refusal.reason}: {explanation.refusal.public}")
        for fact, value in explanation.refusal.evidence.items():
            # Nothing of this need be true, and a token may hold what moves the cursor.
            told = shown(list(value) if isinstance(value, tuple) else value)
            click.echo(f"               {fact}: {told}")
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
        by = (
            f"{decision.effect} {decision.policy}/{decision.sid}"
            if decision.policy
            else "nothing matches"
        )
        access = f"{decision.access.action}={decision.access.resource}"
        click.echo(f"{yes if decision.allowed else no}  {access}  ({by})")
