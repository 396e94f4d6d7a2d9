"""What the audit trail says of what was sent, read as an operator reads it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from faults.load import Sent
from federation.audit.read import StoredEvent, ends, events
from federation.audit.segments import by_process, stored
from federation.audit.verify import check_journal
from federation.jose.jwk import KeySet, parse_key_set
from federation.tokens.signing_keys import KeyFolder, read_pem

__all__ = ["broken_laws", "digest", "recorded", "recorded_by_process"]

_MOST_TOLD = 5


def recorded(*states: Path) -> list[StoredEvent]:
    """Every event in the trails of *states*."""
    return [event for state in states for own in recorded_by_process(state) for event in own]


def recorded_by_process(state: Path) -> list[list[StoredEvent]]:
    """The events of each process, in the order in which it recorded them."""
    segments = stored(state / "audit")
    counted = ends(segments)
    return [
        [event for each in own for _, event in events(each.path, 0, counted[each.path])]
        for own in by_process(segments)
    ]


def digest(token: str) -> str:
    """How an event names *token*."""
    return hashlib.sha256(token.encode("ascii")).hexdigest()


def broken_laws(sent: Iterable[Sent], *states: Path) -> list[str]:
    """
    What no fault may break, broken: every answer is in the trail, and no token was taken twice.

    An answer that says that the trail is unavailable is the one that need not be in it.
    """
    sent, trail = list(sent), recorded(*states)
    by_request = {str(event["request_id"]): event for event in trail}
    wrong = [
        f"answered {each.status} {each.reason} and not in the trail: {each.request_id}"
        for each in sent
        if each.status is not None
        and each.reason != "audit_unavailable"
        and by_request.get(each.request_id, {}).get("response_code") != each.status
    ]
    answers = Counter(each.token for each in sent if each.status == 200)
    wrong += [f"{n} grants for one token" for n in answers.values() if n > 1]
    grants = Counter(str(e["token_sha256"]) for e in trail if e["response_code"] == 200)
    wrong += [f"{n} grants in the trail for one token" for n in grants.values() if n > 1]
    for state in states:
        findings = check_journal(state / "audit", _public_keys(state)).findings
        wrong += [f"the trail: {finding}" for finding in findings if finding.broken]
    return [*wrong[:_MOST_TOLD], *_more(wrong)]


def _public_keys(state: Path) -> KeySet:
    given = [key for folder in state.parents if (key := folder / "signing.pem").exists()]
    if given:  # replicas share one key
        return parse_key_set({"keys": [read_pem(given[0].read_bytes()).jwk]})
    return parse_key_set({**KeyFolder.under(state).load().jwks()})


def _more(wrong: Sequence[str]) -> list[str]:
    left = len(wrong) - _MOST_TOLD
    return [f"and {left} more like these"] if left > 0 else []
