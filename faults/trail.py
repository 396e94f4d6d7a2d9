"""Compare the audit trail with what was sent, and find broken promises."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from federation.audit.read import StoredEvent, ends, events
from federation.audit.segments import by_process, parts, stored
from federation.audit.verify import check_journal
from federation.jose.jwk import KeySet, parse_key_set
from federation.tokens.signing_keys import KeyFolder, read_pem
from tests.harness.broker import Served
from tests.harness.load import Sent

_MOST_TOLD = 5
_OF_STRANGERS = frozenset(
    {
        *("malformed_token", "token_too_large", "untrusted_issuer", "unsupported_algorithm"),
        *("unknown_key", "bad_signature", "wrong_audience", "keys_unavailable", "invalid_request"),
        *("unsupported_grant_type", "too_many_failures"),
    }
)
"""Reasons of refusals before it is known whose token it is. These make no event."""


def recorded(*states: Path) -> list[StoredEvent]:
    """Every event in the audit trails of *states*."""
    return [event for state in states for own in recorded_by_process(state) for event in own]


def recorded_by_process(state: Path) -> list[list[StoredEvent]]:
    """The events of each process, in the order in which it recorded them."""
    found = []
    for folder in parts(state / "audit"):
        segments = stored(folder)
        counted = ends(segments)
        found += [
            [event for each in own for _, event in events(each.path, 0, counted[each.path])]
            for own in by_process(segments)
        ]
    return found


def digest(token: str) -> str:
    """The digest by which an event names *token*."""
    return hashlib.sha256(token.encode("ascii")).hexdigest()


def broken_promises(sent: Iterable[Sent], *brokers: Served) -> list[str]:
    """
    The promises that no fault may break and that did not hold.

    Every answer has its event, except one that says that the trail is unavailable, and one to a
    caller that is not known. No token is granted twice. The trail is whole. No broker logs a traceback.
    """
    sent, trail = list(sent), recorded(*(broker.state for broker in brokers))
    by_request = {str(event["request_id"]): event for event in trail}
    wrong = [
        f"answered {each.answer} and not in the trail: {each.request_id}"
        for each in sent
        if each.status is not None
        and each.reason not in {"audit_unavailable", *_OF_STRANGERS}
        and by_request.get(each.request_id, {}).get("response_code") != each.status
    ]
    answers = Counter(each.token for each in sent if each.status == 200)
    wrong += [f"{n} grants for one token" for n in answers.values() if n > 1]
    given = [e for e in trail if e["response_code"] == 200 and e["path"] == "/oauth/token"]
    grants = Counter(str(e["token_sha256"]) for e in given)
    wrong += [f"{n} grants in the trail for one token" for n in grants.values() if n > 1]
    for broker in brokers:
        for folder in parts(broker.state / "audit"):
            findings = check_journal(folder, _public_keys(broker.state)).findings
            wrong += [f"the trail: {found}" for found in findings if found.broken]
        wrong += broker.unexpected_errors()
    return [*wrong[:_MOST_TOLD], *_more(wrong)]


def not_granted(sent: Sequence[Sent], what: str = "an exchange") -> list[str]:
    """Those of *sent* that were not granted, as sentences; there must be some that were sent."""
    wrong = [f"{what} got {each.answer}" for each in sent if each.status != 200]
    return wrong if sent else ["nothing was sent"]


def _public_keys(state: Path) -> KeySet:
    given = [key for folder in state.parents if (key := folder / "signing.pem").exists()]
    if given:  # replicas share one key
        return parse_key_set({"keys": [read_pem(given[0].read_bytes()).jwk]})
    return parse_key_set({**KeyFolder.under(state).load().jwks()})


def _more(wrong: Sequence[str]) -> list[str]:
    left = len(wrong) - _MOST_TOLD
    return [f"and {left} more like these"] if left > 0 else []
