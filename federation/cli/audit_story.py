"""
The whole story of one event of the audit trail: what `federation audit show` prints.

An event has the evidence of its time: what Roles expected beside what the token had. If it keeps the
claims too, they are explained by the documents of now, by the function that `federation explain` calls.
Everything here may have been worded by a caller, so it is printed without control characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import click

from federation.audit.read import StoredEvent
from federation.claims import UnverifiedClaims
from federation.cli.explain import show_explanation
from federation.documents.catalog import Catalog
from federation.explained import claims_kept, explain_claims, notes_on
from federation.policy.explain import Explanation
from federation.text import no_command

_EVIDENCE = " Evidence: {"
_CUT = "..."
_WAS_CUT = "cut"
_PART_OF_EVIDENCE = re.compile(r'({"role":)|(?={"operator":)')
"""The name of a Role, or a finding. Within a string of JSON the quotes would be escaped."""
_FACTS: Mapping[str, str] = {
    "event_id": "event",
    "request_id": "request",
    "time": "time",
    "token_sha256": "token",
    "reason": "reason",
    "roles_asked": "asked for",
    "roles": "roles",
    "policies": "policies",
    "shadow_roles": "shadow",
    "shadow_policies": "would get",
    "actions": "actions",
    "namespace": "namespace",
    "resource": "resource",
}


@dataclass(frozen=True, slots=True)
class Story:
    """One event, its evidence, and what the documents of now say about its claims."""

    event: StoredEvent
    sentence: str
    evidence: Mapping[str, object]
    explanation: Explanation | None
    notes: tuple[str, ...]


def story_of(event: StoredEvent, catalog: Catalog | None, now: float) -> Story:
    """Return the story of *event*. *catalog* has the documents of now, None if none were given."""
    sentence, evidence = _divided(str(event.get("custom_message") or ""))
    if catalog is None:
        note = "With --documents, its claims are explained condition by condition."
        return Story(event, sentence, evidence, None, (note,) if "claims" in event else ())
    try:
        claims = claims_kept(event)
    except ValueError as error:
        return Story(event, sentence, evidence, None, (str(error),))
    explanation = explain_claims(catalog, UnverifiedClaims(claims), (), now=now)
    notes = tuple(
        note.replace("The documents in force now", "The documents given here")
        for note in notes_on(event, explanation, catalog)
    )
    return Story(event, sentence, evidence, explanation, notes)


def story_as_json(story: Story) -> dict[str, object]:
    """Return the story for programs."""
    return {
        "event": story.event,
        "evidence": story.evidence,
        "explanation": story.explanation.as_json() if story.explanation else None,
        "notes": list(story.notes),
    }


def tell(story: Story, colours: bool | None) -> None:
    """Print the story for people."""

    def line(text: str) -> None:
        click.echo(no_command(text), color=colours)

    for label, value in _facts(story):
        line(f"{label:<10}{value}")
    for text in _evidence_lines(story.evidence):
        line(text)
    if isinstance(claims := story.event.get("claims"), dict):
        line("")
        line("The token said:")
        for name, value in claims.items():
            line(f"  {name}  {_shown(value)}")
    if story.explanation:
        line("")
        line("By the documents given here:")
        show_explanation(story.explanation)
    for note in story.notes:
        line("")
        line(note)
    line("")


def _facts(story: Story) -> Iterator[tuple[str, str]]:
    """Yield what the event says about the request, without what is empty."""
    event = story.event
    yield "answer", " ".join(str(event.get(m)) for m in ("response_code", "method", "path"))
    if isinstance(actor := event.get("actor"), dict):
        yield "who", f"{actor.get('sub')}, by {actor.get('fed_issuer') or actor.get('issuer')}"
    for member, label in _FACTS.items():
        if value := event.get(member):
            yield label, f"sha256 {value}" if member == "token_sha256" else _shown(value)
    if story.sentence:
        yield "said", story.sentence


def _evidence_lines(evidence: Mapping[str, object]) -> Iterator[str]:
    """Yield the evidence, the Roles that came nearest as `federation explain` shows them."""
    if not evidence:
        return
    yield ""
    yield (
        "At that time:"
        if _WAS_CUT not in evidence
        else (
            "At that time, as far as the event could keep it (the log has all of it under the request id):"
        )
    )
    for name, value in evidence.items():
        if name == "nearest" and isinstance(value, list):
            for role in value:
                yield from _role_lines(role) if isinstance(role, dict) else ()
        elif name != _WAS_CUT and value not in ([], "", None):
            yield f"  {name}  {_shown(value)}"


def _role_lines(role: Mapping[str, object]) -> Iterator[str]:
    yield f"  Role {role.get('role')}  no"
    failed, unmet = role.get("failed"), role.get("unmet")
    for finding in failed if isinstance(failed, list) else []:
        if isinstance(finding, dict):
            yield f"    no   {finding.get('operator')} {finding.get('key')}"
            yield f"           expected  {_shown(finding.get('expected'))}"
            yield f"           got       {_shown(finding.get('got'))}"
    for sentence in unmet if isinstance(unmet, list) else []:
        yield f"    no   {sentence}"


def _shown(value: object) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return " | ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _divided(message: str) -> tuple[str, dict[str, object]]:
    """Return the sentence and the evidence in *message*, as far as the event could keep it."""
    # A caller may have written the mark into its subject. Only the real evidence is JSON to the end.
    for mark in re.finditer(re.escape(_EVIDENCE), message):
        try:
            evidence = json.loads(message[mark.end() - 1 :])
        except (ValueError, RecursionError):
            continue
        return message[: mark.start()], evidence
    sentence, mark_found, cut = message.partition(_EVIDENCE)
    if mark_found and message.endswith(_CUT) and (nearest := _whole_findings(cut)):
        return sentence, {"nearest": nearest, _WAS_CUT: True}
    return message, {}


def _whole_findings(text: str) -> list[dict[str, object]]:
    """Return the Roles in *text*, evidence that was cut, with each of their findings that is whole."""
    roles: list[dict[str, object]] = []
    for found in _PART_OF_EVIDENCE.finditer(text):
        try:
            value, _ = json.JSONDecoder().raw_decode(text, found.end())
        except (ValueError, RecursionError):
            break
        if found[1]:
            roles.append({"role": value, "failed": []})
        elif roles and isinstance(failed := roles[-1]["failed"], list):
            failed.append(value)
    return roles
