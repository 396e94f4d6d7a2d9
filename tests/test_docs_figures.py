"""Limits that the docs promise are those of the code, so neither changes without the other."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from federation.app.lifespan import _LAST_DELIVERY_SECONDS
from federation.app.parts import _OUTSIDERS_SHARE
from federation.audit.bounds import FIELD_BYTES
from federation.audit.journal import _SEGMENT_BYTES, _SEGMENTS
from federation.audit.kept_claims import _MOST_BYTES
from federation.audit.webhook import _TOTAL_SECONDS
from federation.dashboard.app import _FAILURES_A_MINUTE
from federation.dashboard.at_once import AtOnce
from federation.dashboard.parts import Parts
from federation.gateway.body_budget import _WAIT_SECONDS, SMALL_BYTES
from federation.gateway.request import _WHOLE_SECONDS
from federation.gateway.routes import BODY_BYTES
from federation.issuers.fetch import MAX_RESPONSE_BYTES
from federation.issuers.key_ring import _FETCHES_AT_ONCE
from federation.issuers.verify import _LONGEST_ONCE_SECONDS
from federation.jose.jwk import MAX_KEYS
from federation.jose.jws import MAX_TOKEN_BYTES
from federation.jose.strict_json import MAX_DEPTH
from federation.server.http_limits import (
    _GRACE_SECONDS,
    _REFUSED_CONNECTIONS,
    _WAITING_REQUESTS,
    CONNECTIONS,
    HEAD_BYTES,
    HEAD_SECONDS,
    KEEP_ALIVE_SECONDS,
    SEND_SECONDS,
)
from federation.sources.kubernetes.mirror import Pace
from federation.state import ONE_BY_ONE
from federation.state.expiring import KEPT_LONGER_SECONDS
from federation.state.sessions import OF_ONE_TAG
from federation.tokens.signing_keys import LONGEST_TOKEN
from federation.tokens.verify import _REMEMBERED_BYTES
from federation.web.forms import _BODY_SECONDS, _FORM_BYTES
from federation.web.rate_limit import _ADDRESSES, _EXCHANGES_OF_A_TOKEN, _REVOCATIONS_A_MINUTE

DOCS = Path(__file__).parents[1] / "docs"
KIB = 1024
MIB = 1024 * KIB
WORDS = {4: "four", 5: "five", 8: "an eighth"}


def at_once(field: str) -> AtOnce:
    """Return the default of *field* of the dashboard's parts."""
    factory = Parts.__dataclass_fields__[field].default_factory
    made = factory() if callable(factory) else None
    assert isinstance(made, AtOnce)
    return made


PAGES, GROWING = at_once("pages"), at_once("growing")

PROMISED = {
    "security-model.md": [
        (
            f"Tokens have at most {MAX_TOKEN_BYTES // KIB} KiB, forms {_FORM_BYTES // KIB} KiB,"
            f" key sets {MAX_RESPONSE_BYTES // KIB} KiB and {MAX_KEYS} keys, JSON {MAX_DEPTH} levels."
        ),
        f"live at most {LONGEST_TOKEN.total_seconds() / 3600:.0f} hours",
        f"Such a token is taken for at most {_LONGEST_ONCE_SECONDS / 86400:.0f} days",
        f"remembers verified access tokens in at most {_REMEMBERED_BYTES // MIB} MiB",
        (
            f"No field is longer than {FIELD_BYTES // KIB} KiB, apart from `claims` with"
            f" {_MOST_BYTES // KIB} KiB."
        ),
        f"have {WORDS[_OUTSIDERS_SHARE]} of the journal",
        f"Of the pipelined requests of one connection, {WORDS[_WAITING_REQUESTS]} wait.",
        f"The keys of at most {_FETCHES_AT_ONCE} issuers are fetched at once.",
        f"remembered for {KEPT_LONGER_SECONDS / 60:.0f} minutes longer than it is valid",
        f"takes room for at most {ONE_BY_ONE + 1} revocations",
        f"make at most {_REVOCATIONS_A_MINUTE} a minute in each worker",
    ],
    "audit.md": [
        (
            f"{WORDS[_SEGMENTS]} of the room for its kind, divided by the workers,"
            f" at most {_SEGMENT_BYTES // MIB} MiB"
        ),
        f"Only a whole answer with 2xx counts, within {_TOTAL_SECONDS:.0f} s.",
    ],
    "dashboard.md": [
        f"A person has at most {OF_ONE_TAG} sessions",
        f"An address may fail {_FAILURES_A_MINUTE} times a minute in each process.",
        f"can have {PAGES._of_one} pages made at once and {GROWING._of_one} that grow",
        f"all people together {PAGES._of_all} and {GROWING._of_all}",
    ],
    "kubernetes.md": [
        f"A watch that is silent for {Pace().silence:.0f} s is cut",
        f"though it should have after {Pace().watch:.0f} s",
    ],
    "deploy.md": [
        f"`subjectTokenUse: many` | {_EXCHANGES_OF_A_TOKEN} per minute",
        f"of the tokens of one subject of one issuer | {_REVOCATIONS_A_MINUTE} per minute",
        f"that are revoked one by one | {ONE_BY_ONE} |",
        f"line and headers | {HEAD_BYTES // KIB} KiB, {HEAD_SECONDS:.0f} s from",
        f"a form | {_FORM_BYTES // KIB} KiB, {_BODY_SECONDS:.0f} s to arrive",
        f"API | {BODY_BYTES // MIB} MiB, {_WHOLE_SECONDS:.0f} s to arrive",
        f"all bodies of more than {SMALL_BYTES // KIB} KiB",
        f"after {_WAIT_SECONDS:.0f} s without room",
        f"pipelined requests of one connection | {_WAITING_REQUESTS} wait",
        f"connections to one worker | {CONNECTIONS} |",
        f"from {CONNECTIONS + _REFUSED_CONNECTIONS} on, new connections are closed at once",
        f"remembers the last {_ADDRESSES:,} addresses",
        f"After {_GRACE_SECONDS} seconds it closes",
        f"It has {WORDS[int(_LAST_DELIVERY_SECONDS)]} more seconds to deliver audit events.",
        f"`FEDERATION_KEEP_ALIVE` | `{KEEP_ALIVE_SECONDS:.0f}s`",
        f"`FEDERATION_SEND_TIMEOUT` | `{SEND_SECONDS:.0f}s`",
    ],
}


@cache
def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", (DOCS / page).read_text("utf-8"))


@pytest.mark.parametrize(
    ("page", "promise"), [(page, promise) for page, said in PROMISED.items() for promise in said]
)
def test_a_limit_that_the_docs_promise_is_that_of_the_code(page: str, promise: str) -> None:
    assert promise in text_of(page)
