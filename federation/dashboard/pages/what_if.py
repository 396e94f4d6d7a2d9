"""
The page that decides for claims of a form, condition by condition.

Claims come from a recorded job, from a sample, or from the person. Each claim then has a line in
the form, so that one value can be changed and the question asked again. The broker evaluates them
with the function that decides an exchange; nothing is granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from federation.dashboard.answers import Event, Explanation
from federation.dashboard.broker import Access
from federation.dashboard.connection import BrokerError, NotAllowed, NotTaken, NotThere, SignInAgain
from federation.dashboard.pages.visit import Visit, does, given, shows
from federation.dashboard.words import json_text
from federation.demo import jobs
from federation.documents.model import ACTIONS
from federation.jose import strict_json
from federation.policy import permissions
from federation.web.forms import Form

MOST_CLAIMS = 80
"""A form has at most 200 fields, and a claim takes two."""
_ACCESSES = 4
_CLAIMS_CHARS = 48 * 1024
_VALUE_CHARS = 8 * 1024
_JOBS = 10
_GITHUB, _GITLAB = "https://token.actions.githubusercontent.com", "https://gitlab.com"
_SAMPLES: Mapping[tuple[str, str], str] = {
    ("github", "main"): _GITHUB,
    ("github", "feature"): _GITHUB,
    ("github", "environment"): _GITHUB,
    ("gitlab", "main"): _GITLAB,
    ("gitlab", "feature"): _GITLAB,
}
"""Provider and job of each sample, and the issuer of its token."""
_LINE = re.compile(r"name-([0-9]{1,3})")


@dataclass(frozen=True, slots=True)
class Line:
    """A claim as a line of the form: plain text, or JSON where it is no text."""

    name: str
    kind: str
    value: str

    @classmethod
    def of(cls, name: str, value: object) -> Line:
        """The line that `read` turns into *value* again."""
        if isinstance(value, str) and value and "\r" not in value and "\n" not in value:
            return cls(name, "text", value)
        return cls(name, "json", json_text(value))

    def read(self) -> object:
        """The claim. Raises: NotTaken if it is not the JSON that it must be."""
        if self.kind == "text":
            return self.value
        try:
            return strict_json.loads(self.value.encode())
        except ValueError:
            raise NotTaken(
                f"The claim {self.name} is not JSON: write text in double quotes."
            ) from None


@shows("what-if")
async def ask(visit: Visit) -> Response:
    """Show the form, with the claims of a recorded job or of a sample where one was picked."""
    claims: Mapping[str, object] = {}
    trouble = ""
    if event_id := visit.asked("event"):
        try:
            claims = (await visit.broker.explain_event(visit.token, event_id)).claims
        except (SignInAgain, NotAllowed):
            raise
        except BrokerError as error:
            trouble = error.sentence
    elif sample := visit.asked("sample"):
        claims = await _sample(visit, sample)
    return await _page(visit, claims, trouble=trouble)


@does("what-if")
async def answer(visit: Visit, form: Form) -> Response:
    """Show the decision for the form's claims and accesses."""
    claims: Mapping[str, object] = {}
    accesses: list[Access] = []
    try:
        accesses = list(_accesses(form))
        claims = _claims(form)
        explanation = await visit.broker.explain(visit.token, claims, accesses)
    except NotTaken as error:
        pasted = given(form, "claims", 2**20)
        return await _page(visit, claims, accesses, trouble=error.sentence, pasted=pasted)
    return await _page(visit, claims, accesses, explanation=explanation)


async def _page(
    visit: Visit,
    claims: Mapping[str, object],
    accesses: Sequence[Access] = (),
    *,
    explanation: Explanation | None = None,
    trouble: str = "",
    pasted: str = "",
) -> Response:
    too_many = len(claims) > MOST_CLAIMS
    rows = [*accesses, *[("", "")] * _ACCESSES][: max(_ACCESSES, len(accesses))]
    return await visit.page(
        "what_if.html",
        200 if not trouble else 400,
        lines=[Line.of(name, value) for name, value in claims.items()][:MOST_CLAIMS],
        too_many=too_many,
        pasted=pasted or (json_text(claims) if too_many else ""),
        accesses=rows,
        actions=sorted(ACTIONS),
        explanation=explanation,
        trouble=trouble,
        recorded=await _recorded(visit),
        samples=[" ".join(sample) for sample in _SAMPLES],
    )


def _claims(form: Form) -> Mapping[str, object]:
    """The claims in the form: pasted as JSON, or a line each. An emptied line is no claim."""
    if pasted := given(form, "claims", _CLAIMS_CHARS).strip():
        try:
            return strict_json.loads_object(pasted.encode())
        except ValueError as error:
            raise NotTaken(f"The claims are not a JSON object: {error}.") from None
    claims: dict[str, object] = {}
    for field in form:
        if number := _LINE.fullmatch(field):
            name = given(form, field)
            for kind in ("text", "json"):
                if value := given(form, f"{kind}-{number[1]}", _VALUE_CHARS):
                    claims[name] = Line(name, kind, value).read()
    if name := given(form, "new-name").strip():
        claims[name] = given(form, "new-text", _VALUE_CHARS)
    if not claims:
        raise NotTaken("There are no claims yet. Paste some as JSON, or pick a recorded job.")
    return claims


def _accesses(form: Form) -> Iterator[Access]:
    for number in range(1, _ACCESSES + 1):
        action, on = given(form, f"action-{number}"), given(form, f"resource-{number}").strip()
        if not on:
            continue
        try:
            permissions.Access.parse(action, on)
        except ValueError as error:
            raise NotTaken(f"Access {number}: {error}.") from None
        yield action, on


async def _recorded(visit: Visit) -> list[Event]:
    """The newest exchanges whose claims the trail has, for those who may read it."""
    if not await visit.reads_audit():
        return []
    try:
        page = await visit.broker.audit(visit.token, kind="exchange", limit="50")
    except BrokerError:
        return []
    return [event for event in page.events if event.claims][:_JOBS]


async def _sample(visit: Visit, name: str) -> Mapping[str, object]:
    """The claims of a sample job, for the audience of this broker."""
    provider, _, job = name.partition(" ")
    if (provider, job) not in _SAMPLES:
        raise NotThere("There is no such sample.")
    whoami = await visit.broker.whoami(visit.token)
    iss, now = _SAMPLES[provider, job], visit.now
    return jobs.claims_of(provider, job, iss=iss, audience=whoami.issuer, now=now)
