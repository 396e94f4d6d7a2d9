"""
One request of a person who signed in: who asks, what they may see, and the page that answers.

Every page asks the broker with the person's own token, and shows the broker's sentence where it
says no. The navigation lists what the broker says this person may read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from federation.dashboard import words
from federation.dashboard.answers import Decision
from federation.dashboard.broker import Access, Broker
from federation.dashboard.connection import BrokerError, Connection, NotTaken, SignInAgain
from federation.dashboard.gateway import Gateway
from federation.dashboard.moments import Moment, moment
from federation.dashboard.page import Endpoint, changes, refusal, render, sign_in_path, signed_in
from federation.dashboard.parts import parts_of
from federation.dashboard.session import Session
from federation.text import counted, printable
from federation.web.forms import Form

READ_DOCUMENTS: Access = ("Documents:Read", "*")
READ_AUDIT: Access = ("Audit:Read", "*")
_SHOWN_CHARS = 500

_NAVIGATION: tuple[tuple[str, str, str, Access | None], ...] = (
    ("you", "/", "You", None),
    ("functions", "/functions", "Functions", None),
    ("events", "/events", "Events", READ_AUDIT),
    ("documents", "/documents", "Documents", READ_DOCUMENTS),
    ("what-if", "/what-if", "What if", READ_DOCUMENTS),
    ("who-can", "/who-can", "Who can", READ_DOCUMENTS),
)
_TITLES: Mapping[int, str] = {
    400: "That did not work",
    401: "Sign in again",
    403: "You may not do this",
    404: "Not found",
    502: "No answer",
}


class Shown:
    """Functions by which templates show a value from outside. Templates escape the result."""

    def __init__(self, now: float) -> None:
        self._now = now

    actions = staticmethod(words.actions_in_words)
    claim = staticmethod(words.claim_name)
    counted = staticmethod(counted)
    lines = staticmethod(words.several_lines)
    operator = staticmethod(words.operator_in_words)
    reason = staticmethod(words.reason_in_words)
    resource = staticmethod(words.resource_in_words)
    value = staticmethod(words.value_in_words)

    @staticmethod
    def part(name: str) -> str:
        """*name* as one part of an address."""
        return quote(name, safe="")

    def text(self, value: object) -> str:
        """A text on one line, with nothing that cannot be seen."""
        return printable(str(value), _SHOWN_CHARS)

    def moment(self, when: float | str) -> Moment | None:
        """A time, and how long ago it is."""
        return moment(when, self._now)


@dataclass(slots=True)
class Visit:
    """A request of *session*, on the part of the dashboard called *here*."""

    request: Request
    session: Session
    here: str
    _may: dict[Access, Decision] = field(default_factory=dict)

    @property
    def token(self) -> str:
        """The access token of the person."""
        return self.session.access_token

    @property
    def broker(self) -> Broker:
        """The broker's API for people."""
        return Broker(self._connection)

    @property
    def gateway(self) -> Gateway:
        """The gateway behind the broker."""
        return Gateway(self._connection)

    @property
    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return parts_of(self.request).clock()

    @property
    def _connection(self) -> Connection:
        parts = parts_of(self.request)
        return Connection(parts.http, parts.gateway)

    async def may(self, *accesses: Access) -> dict[Access, Decision]:
        """The broker's decision about each of *accesses*, and about the navigation."""
        asked = {*accesses, READ_DOCUMENTS, READ_AUDIT} - self._may.keys()
        if asked:
            self._may |= await self.broker.can_i(self.token, sorted(asked))
        return self._may

    async def reads_audit(self) -> bool:
        """True if the person may read the audit trail."""
        return (await self.may())[READ_AUDIT].allowed

    async def page(self, template: str, status: int = 200, **values: object) -> Response:
        """The page made of *template*."""
        await self.may()
        return self._render(template, status, **values)

    async def trouble(self, error: BrokerError) -> Response:
        """The page that says what went wrong, and what to do."""
        try:
            await self.may()
        except BrokerError:
            self._may = {}  # the navigation then lists what everybody may see
        return self._render(
            "trouble.html",
            error.status,
            title=_TITLES.get(error.status, "That did not work"),
            error=error,
            sign_in_to=sign_in_path(self.request) if isinstance(error, SignInAgain) else "",
        )

    def go(self, path: str, **query: str) -> Response:
        """A redirect to a page of ours, after a change."""
        return RedirectResponse(f"{path}?{urlencode(query)}" if query else path, 303)

    def asked(self, name: str, default: str = "") -> str:
        """A parameter of the query, without blanks around it."""
        return self.request.query_params.get(name, default)[:_SHOWN_CHARS].strip()

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number in the query, between 1 and *most*."""
        given = self.asked(name)
        if not given.isdecimal() or len(given) > 6:
            return default
        return min(max(int(given), 1), most)

    def _render(self, template: str, status: int, **values: object) -> Response:
        return render(
            self.request,
            template,
            status,
            navigation=self._navigation(),
            show=Shown(self.now),
            **values,
        )

    def _navigation(self) -> list[tuple[str, str, bool]]:
        """Address and name of each part that the person may see, and whether they are there."""
        return [
            (address, name, part == self.here)
            for part, address, name, needs in _NAVIGATION
            if needs is None or (needs in self._may and self._may[needs].allowed)
        ]


Shows = Callable[[Visit], Awaitable[Response]]
Does = Callable[[Visit, Form], Awaitable[Response]]


def shows(here: str) -> Callable[[Shows], Endpoint]:
    """An endpoint that shows a page of the part *here*, or why it cannot be shown."""

    def wrap(page: Shows) -> Endpoint:
        async def endpoint(request: Request, session: Session) -> Response:
            visit = Visit(request, session, here)
            with parts_of(request).pages.one(session.subject) as fits:
                if not fits:
                    return _too_many(request)
                try:
                    return await page(visit)
                except BrokerError as error:
                    return await visit.trouble(error)

        return signed_in(endpoint)

    return wrap


def does(here: str) -> Callable[[Does], Endpoint]:
    """An endpoint for a form of ours, or the page that says why nothing was done."""

    def wrap(change: Does) -> Endpoint:
        async def endpoint(request: Request, session: Session, form: Form) -> Response:
            visit = Visit(request, session, here)
            with parts_of(request).pages.one(session.subject) as fits:
                if not fits:
                    return _too_many(request)
                try:
                    return await change(visit, form)
                except BrokerError as error:
                    return await visit.trouble(error)

        return changes(endpoint)

    return wrap


def _too_many(request: Request) -> Response:
    return refusal(
        request,
        "Too many at once",
        "Too many pages are asked for at once, so this one was not made and nothing was changed.",
        429,
        advice="Wait until the others are there, then try again.",
    )


def given(form: Form, name: str, most_chars: int = _SHOWN_CHARS) -> str:
    """The one value of a form's field, empty without one. Raises: NotTaken if it is too long."""
    value = next(iter(form.get(name, ())), "")
    if len(value) > most_chars:
        raise NotTaken(f"The field {name} is longer than {most_chars} characters.")
    return value


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Pages(Generic[Item]):
    """Some of many items: page *number* of *count*."""

    items: Sequence[Item]
    number: int
    count: int
    total: int

    @classmethod
    def of(cls, every: Sequence[Item], number: int, size: int) -> Pages[Item]:
        """Page *number*, counted from 1, or the last one if there are fewer."""
        count = max(1, -(-len(every) // size))
        number = min(number, count)
        return cls(every[(number - 1) * size : number * size], number, count, len(every))
