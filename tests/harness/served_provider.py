"""
An OpenID provider on a port, for tests that run the command line: it can be held, down, or strict.

It signs in whoever opens its page. A refresh token that comes twice ends the session (RFC 9700,
section 4.14.2), unless the test allows it. `BROWSER` is a person who opens a page and stays for
what it asks.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import httpx2

from federation.demo.stage import serving
from tests.harness import documents
from tests.harness.openid_provider import CLIENT_ID, FakeProvider, Grant, form_of, oauth_error
from tests.harness.process import in_thread

CONFIDENTIAL = "openfaas-confidential"
SECRET = "a-client-secret-of-40-characters:%012345"

BROWSER = """
import html, re, sys, urllib.parse, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
page = opener.open(sys.argv[1], timeout=60).read().decode()
form = re.search(r'<form method="post" action="([^"]*)">(.*)</form>', page, re.DOTALL)
if form:
    fields = re.findall(r'name="([^"]*)" value="([^"]*)"', form[2])
    body = urllib.parse.urlencode([(n, html.unescape(v)) for n, v in fields]).encode()
    opener.open(html.unescape(form[1]), body, timeout=60).read()
"""


@dataclass(slots=True)
class ServedProvider(FakeProvider):
    """A provider that tests disturb while others use it."""

    clock: Any = time.time
    secrets: dict[str, str] = field(default_factory=lambda: {CLIENT_ID: "", CONFIDENTIAL: SECRET})
    claims_changes: dict[str, object] = field(
        default_factory=lambda: {"groups": ["developers"], "preferred_username": "alice"}
    )
    id_token_seconds: int = 300
    refresh_claims: dict[str, object] = field(default_factory=dict)
    """Claims of ID tokens that a refresh gives, where they differ."""
    own_audience: str = CONFIDENTIAL
    """Whom the tokens are for that a client gets for itself."""
    reuse_allowed: bool = False
    refresh_gives_id_token: bool = True
    refuses_with: str = ""
    """If set, the error that every grant gets."""
    down: bool = False
    """If set, every answer is 503."""
    requests: list[str] = field(default_factory=list)
    """The endpoints that were asked, the token endpoint by its grant type."""
    forms: list[dict[str, str]] = field(default_factory=list)
    """What they were sent, the authorization endpoint its query."""
    used: dict[str, Grant] = field(default_factory=dict)
    """By refresh token that was exchanged for another one."""
    ended: set[int] = field(default_factory=set)
    """Sessions, by the id of their grant."""
    activated: bool = False
    """True once a person has signed in on another device."""
    held: dict[str, threading.Event] = field(default_factory=dict)
    reached: dict[str, threading.Event] = field(default_factory=dict)

    # What a test does

    def renew(self) -> None:
        """Be as at the start, but for address and keys."""
        for each in fields(self):
            if each.name not in {"iss", "keys"}:
                make = each.default_factory
                setattr(self, each.name, each.default if make is MISSING else make())

    @contextmanager
    def hold(self, point: str) -> Iterator[threading.Event]:
        """
        Keep requests at *point* until the block ends. The event says that one has come.

        `token` is before a grant is looked at, `granted` after it was and before the answer leaves,
        `keys` before the keys are given.
        """
        released = self.held[point] = threading.Event()
        reached = self.reached[point] = threading.Event()
        try:
            yield reached
        finally:
            del self.held[point]
            released.set()

    def count(self, what: str) -> int:
        """How often *what* was asked."""
        return self.requests.count(what)

    def end_sessions(self) -> None:
        """End every session, as an administrator would."""
        self.sessions.clear()

    def give(self, client_id: str = CLIENT_ID) -> dict[str, str]:
        """The tokens of a person who has signed in, without a browser."""
        body: dict[str, str] = self.tokens(Grant(client_id, self.person)).json()
        return body

    def lose_refresh(self, token: str, client_id: str = CLIENT_ID) -> None:
        """A refresh whose answer nobody gets."""
        self._refresh(client_id, {"refresh_token": token})

    # What it does

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        name = request.url.path.rpartition("/")[2]
        form = dict(request.url.params) if request.method == "GET" else form_of(request)
        self.requests.append(form.get("grant_type", name).rpartition(":")[2])
        if form:
            self.forms.append(form)
        points = {"token": "token", "jwks": "keys"}
        await self._pass(points.get(name, ""))
        if self.down:
            return httpx2.Response(503)
        answer = await self._answered(name, form, request)
        if name == "token":
            await self._pass("granted")
        return answer

    async def _answered(
        self, name: str, form: Mapping[str, str], request: httpx2.Request
    ) -> httpx2.Response:
        if name == "token" and self.refuses_with:
            return oauth_error(self.refuses_with)
        if name == "authorize" and form["response_type"] == "id_token":
            answer = self.sign_in(str(request.url))
            inputs = "".join(f'<input name="{n}" value="{v}">' for n, v in answer)
            page = f'<form method="post" action="{form["redirect_uri"]}">{inputs}</form>'
            return httpx2.Response(200, text=page, headers={"Content-Type": "text/html"})
        if name == "activate":
            self.activated = True
        if name in {"activate", "logout"}:
            return httpx2.Response(200, text="done")
        return await FakeProvider.answer(self, request)

    def claims(self, grant: Grant) -> dict[str, object]:
        told = FakeProvider.claims(self, grant)
        return {
            **told,
            "exp": int(self.clock()) + self.id_token_seconds,
            "jti": secrets.token_hex(8),
        }

    def access_token_of(self, grant: Grant) -> str:
        now = int(self.clock())
        claims = {"iss": self.iss, "sub": grant.sub, "aud": self.own_audience, "iat": now}
        claims |= {"azp": grant.client_id, "exp": now + 300, "jti": secrets.token_hex(8)}
        return self.issuer.token(claims)

    def _refresh(self, client_id: str, form: Mapping[str, str]) -> httpx2.Response:
        token = form["refresh_token"]
        if token in self.used and not self.reuse_allowed:
            # Somebody has stolen it: this one, or the one who used it before.
            self.sessions = {
                t: g for t, g in self.sessions.items() if g.sub != self.used[token].sub
            }
            return oauth_error("invalid_grant", description="Maximum reuse exceeded")
        if token in self.used:
            self.sessions[token] = self.used[token]
        before = self.claims_changes
        self.claims_changes = before | self.refresh_claims
        grant = self.sessions.get(token)
        answer = FakeProvider._refresh(self, client_id, form)
        self.claims_changes = before
        if grant is not None and self.rotates:
            self.used[token] = grant
        if not self.refresh_gives_id_token and answer.status_code == 200:
            body = {name: value for name, value in answer.json().items() if name != "id_token"}
            return httpx2.Response(200, json=body)
        return answer

    async def _device(self, request: httpx2.Request) -> httpx2.Response:
        answer = await FakeProvider._device(self, request)
        return httpx2.Response(
            200,
            json={
                **answer.json(),
                "verification_uri": f"{self.iss}/activate",
                "verification_uri_complete": f"{self.iss}/activate?user_code=WDJB-MJHT",
                "interval": 1,
            },
        )

    def _of_device(self, client_id: str, form: Mapping[str, str]) -> httpx2.Response:
        if not self.activated:
            return oauth_error("authorization_pending")
        return FakeProvider._of_device(self, client_id, form)

    async def _pass(self, point: str) -> None:
        if (released := self.held.get(point)) is not None:
            self.reached[point].set()
            await asyncio.to_thread(released.wait, 60)


@contextmanager
def served_provider() -> Iterator[ServedProvider]:
    """Serve a provider on a free port, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    provider = ServedProvider(iss=f"http://127.0.0.1:{listener.getsockname()[1]}/realms/octo")
    with in_thread(lambda: serving(provider, listener)):
        yield provider


def browser(folder: Path) -> str:
    """A value of the variable BROWSER: a person who signs in at such a provider."""
    script = folder / "browser.py"
    script.write_text(BROWSER, "utf-8")
    return f"{sys.executable} {script} %s"


def people(iss: str, *clients: str, **spec: object) -> str:
    """Documents by which the developers among the people of *iss* may do everything in `dev`."""
    condition = {
        "StringEqual": {"jwt:iss": [iss]},
        "ForAnyValue:StringEqual": {"jwt:groups": ["developers"]},
    }
    statement = {"sid": "all", "action": ["Function:*", "Namespace:List"], "resource": ["dev:*"]}
    told = {
        "iss": iss,
        "clients": list(clients or (CLIENT_ID, CONFIDENTIAL)),
        "provider": "generic",
    }
    return documents.as_text(
        documents.document("JwtIssuer", "people", {**told, "tokenExpiry": "15m", **spec}),
        documents.policy("develop", statement),
        documents.document("Role", "developers", {"policy": ["develop"], "condition": condition}),
    )


def saved(path: Path) -> Any:
    """The JSON in a file."""
    return json.loads(path.read_text("utf-8"))
