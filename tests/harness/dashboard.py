"""
Dashboards for tests: in process, with an identity provider and a broker that a test moves.

`InProcess` is the whole application. Its browser keeps cookies as browsers do, and says where a
request comes from as they do. `signed_in` gives it a session without the way through the provider.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import httpx2
from starlette.applications import Starlette

from federation.claims import Claims
from federation.client import ClientError
from federation.config.dashboard import DashboardSettings
from federation.dashboard.app import build
from federation.dashboard.cookies import SESSION
from federation.dashboard.parts import Parts
from federation.dashboard.sessions import Granted, Record
from federation.sign_on.provider import (
    ForeignAnswer,
    LoggedOut,
    OpenIdProvider,
    Pending,
    Tokens,
)
from federation.state.sessions import MemorySessions, SessionStore
from tests.harness.clock import Clock

PUBLIC_URL = "https://dashboard.example.com"
GATEWAY = "https://gateway.example.com"
IDP = "https://idp.example.com"
NOW = 1_800_000_000.0
FROM_IDP = {
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
"""How a browser says that a page of another site sent it here."""
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Origin": PUBLIC_URL}


class FakeProvider:
    """An identity provider without HTTP. Its tokens are marks that a test can read."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.issuer = IDP
        self.ends_sessions = True
        self.clock = clock
        self.claims: dict[str, object] = {"sub": "alice-id", "name": "Alice", "sid": "sid-1"}
        self.refresh_token = "refresh-0"
        self.problem = ""
        """Why it gives no answer to anything that is asked of it, empty if it does."""
        self.refusal: ClientError | None = None
        """What it says to everything that is asked of it."""
        self.refreshes: list[str] = []
        self.revoked: list[str] = []
        self.refreshing: Callable[[], Any] = lambda: asyncio.sleep(0)

    def authorization_url(
        self, pending: Pending, *, prompt: str = "", implicit: bool = False
    ) -> str:
        query = {"state": pending.state, "nonce": pending.nonce, "redirect": pending.redirect_uri}
        return f"{IDP}/authorize?{urlencode(query)}"

    def code_of(self, answer: Any, pending: Pending) -> str:
        given: dict[str, str] = dict(answer)
        if len(given) != len(answer) or given.get("state") != pending.state:
            raise ForeignAnswer("state")
        if given.get("iss", IDP) != IDP:
            raise ForeignAnswer("iss")
        if "error" in given:
            raise ClientError(f"The identity provider says: {given['error']}.")
        return given["code"]

    async def redeem(self, code: str, pending: Pending) -> Tokens:
        self._refuse()
        return self._tokens(f"id-token-{code}", self.refresh_token)

    async def refresh(self, refresh_token: str, subject: str) -> Tokens:
        await self.refreshing()
        self._refuse()
        assert subject == self.claims["sub"]
        self.refreshes.append(refresh_token)
        number = len(self.refreshes)
        return self._tokens(f"id-token-{number}", f"refresh-{number}")

    async def revoke(self, refresh_token: str) -> bool:
        self._refuse()
        self.revoked.append(refresh_token)
        return True

    def sign_out_url(self, id_token: str, back_to: str = "", state: str = "") -> str:
        hint = {"id_token_hint": id_token, "post_logout_redirect_uri": back_to}
        return f"{IDP}/end-session?{urlencode(hint)}" if self.ends_sessions else ""

    async def verify_logout_token(self, token: str) -> LoggedOut:
        try:
            told = json.loads(token)
        except ValueError as error:
            raise ClientError("The logout token is not signed by the provider.") from error
        issued = told.get("issued", self.clock())
        sid, sub = told.get("sid", ""), told.get("sub", "")
        return LoggedOut(sid, sub, told["jti"], issued, issued + 120)

    def _refuse(self) -> None:
        if self.refusal:
            raise self.refusal
        if self.problem:
            raise ClientError(self.problem)

    def _tokens(self, id_token: str, refresh_token: str) -> Tokens:
        claims = Claims({"iss": IDP, "iat": self.clock(), **self.claims})
        return Tokens(id_token, "idp-access-token", refresh_token, claims)


class FakeBroker:
    """The broker's token endpoint, and whatever a test adds to `answers` by method and path."""

    def __init__(self) -> None:
        self.expires_in = 900
        self.refusal: Mapping[str, str] | None = None
        self.status = 400
        self.exchanged: list[str] = []
        self.revoked: list[str] = []
        self.requests: list[httpx2.Request] = []
        self.answers: dict[tuple[str, str], Callable[[httpx2.Request], httpx2.Response]] = {}

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        form = dict(httpx2.QueryParams(request.content.decode("latin-1")))
        path = request.url.path
        if found := self.answers.get((request.method, path)):
            return found(request)
        if path == "/oauth/revoke":
            self.revoked.append(form["token"])
            return httpx2.Response(200)
        if path == "/livez":
            return httpx2.Response(200, json={"status": "ok"})
        if path != "/oauth/token":
            return httpx2.Response(404)
        if self.refusal:
            return httpx2.Response(self.status, json=dict(self.refusal))
        self.exchanged.append(form["subject_token"])
        token = f"access-{len(self.exchanged)}"
        return httpx2.Response(200, json={"access_token": token, "expires_in": self.expires_in})


class Browser:
    """A browser at one dashboard: it keeps `__Host-` cookies, and follows nothing by itself."""

    def __init__(self, app: Starlette, url: str = PUBLIC_URL) -> None:
        self._client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app, client=("192.0.2.7", 40000)), base_url=url
        )
        self.cookies: dict[str, str] = {}

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.ask("GET", path, headers=headers)

    async def post(
        self, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """Post a *form*, by default as a page of the dashboard does."""
        given = SAME_ORIGIN if headers is None else headers
        return await self.ask("POST", path, headers=given, data=dict(form))

    async def ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """Send a request with the cookies, and keep those of the answer."""
        headers = {**request.pop("headers", {})}
        if self.cookies:
            jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            headers.setdefault("Cookie", jar)
        answer = await self._client.request(method, path, headers=headers, **request)
        for line in answer.headers.get_list("set-cookie"):
            self._keep(line)
        return answer

    async def csrf(self, path: str = "/") -> str:
        """The CSRF token in the forms of a page."""
        found = re.search(r'name="csrf" value="([^"]+)"', (await self.get(path)).text)
        assert found, "the page has no form"
        return found[1]

    async def aclose(self) -> None:
        await self._client.aclose()

    def _keep(self, line: str) -> None:
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        given = {each.lower() for each in attributes}
        assert name.startswith("__Host-"), line
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= given, line
        assert not any(each.startswith("domain") for each in given), line
        if "max-age=0" in given:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value


class InProcess:
    """A dashboard within the test, with its provider, its broker and its clock."""

    def __init__(
        self,
        folder: Path,
        *,
        store: SessionStore | None = None,
        clock: Clock | None = None,
        provider: FakeProvider | None = None,
        broker: FakeBroker | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or Clock(NOW)
        self.provider = provider or FakeProvider(self.clock)
        self.broker = broker or FakeBroker()
        self.store = store or MemorySessions(self.clock)
        given = {
            "public_url": PUBLIC_URL,
            "gateway": GATEWAY,
            "issuer": IDP,
            "client_id": "dashboard",
            "state": folder,
            **settings,
        }
        self.settings = DashboardSettings(**given)
        self.app = build(
            self.settings,
            store=self.store,
            http=httpx2.AsyncClient(transport=httpx2.MockTransport(self.broker.answer)),
            discover=self._discover,
            clock=self.clock,
        )
        self.parts: Parts = self.app.state.parts

    async def _discover(self) -> OpenIdProvider:
        return cast("OpenIdProvider", self.provider)

    def browser(self) -> Browser:
        """A browser of a person who did nothing yet."""
        return Browser(self.app, self.settings.public_url)

    async def signed_in(self, **claims: object) -> Browser:
        """A browser of a person who signed in."""
        browser = self.browser()
        cookie_id, _ = await self.session(**claims)
        browser.cookies[SESSION] = cookie_id
        return browser

    async def session(self, **claims: object) -> tuple[str, Record]:
        """A new session: the id for its cookie, and what is kept of it."""
        self.provider.claims |= claims
        pending = Pending(f"{PUBLIC_URL}/auth/callback", "state", "nonce", "verifier")
        tokens = await self.provider.redeem("code", pending)
        granted = Granted("access-0", self.clock(), self.clock() + self.broker.expires_in)
        cookie_id = await self.parts.sessions.begin(tokens, granted)
        record = await self.parts.sessions.find(cookie_id)
        assert record is not None
        return cookie_id, record


@asynccontextmanager
async def running(folder: Path, **given: Any) -> AsyncIterator[InProcess]:
    """Run a dashboard in process, with its background tasks, inside the `with` block."""
    dashboard = InProcess(folder, **given)
    async with dashboard.app.router.lifespan_context(dashboard.app):
        assert await dashboard.parts.provider.refresh()
        yield dashboard


Story = Callable[[InProcess], Awaitable[None]]


def tell(folder: Path, story: Story, **given: Any) -> None:
    """Run *story* with a dashboard in process."""

    async def told() -> None:
        async with running(folder / "state", **given) as dashboard:
            await story(dashboard)

    asyncio.run(asyncio.wait_for(told(), 30))


async def begun(browser: Browser, to: str = "") -> dict[str, str]:
    """Begin to sign in, and return the parameters with which the browser arrives at the provider."""
    query = f"?{urlencode({'to': to})}" if to else ""
    answer = await browser.get(f"/auth/login{query}")
    assert answer.status_code == 303, answer.text
    return dict(httpx2.URL(answer.headers["location"]).params)


async def finished(browser: Browser, **answer: str) -> httpx2.Response:
    """Come back from the provider with *answer*, and follow to the page that tells of a refusal."""
    came = await browser.get(f"/auth/callback?{urlencode({'iss': IDP, **answer})}", **FROM_IDP)
    assert came.status_code == 303, came.text
    if came.headers["location"] == "/auth/refused":
        return await browser.get("/auth/refused")
    return came
