"""The loopback callback: which answers it takes, what its pages say, and where it listens."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest

from federation.client import ClientError
from federation.sign_on import callback, callback_pages
from federation.sign_on.answers import Answer, ForeignAnswer
from federation.sign_on.callback import Callback, listening
from federation.sign_on.loopback import bind
from tests.harness.process import free_port

STATE = "the-state"
CODE = "the-code"
HAS_IPV6 = Path("/proc/net/if_inet6").exists()


def take(answer: Answer) -> str:
    """The code in *answer*, if it is ours."""
    parameters = dict(answer)
    if len(parameters) != len(answer) or parameters.get("state") != STATE:
        raise ForeignAnswer
    if "error" in parameters:
        raise ClientError("The provider refused.")
    return parameters.get("code") or parameters["id_token"]


def good(callback: Callback, **parameters: str) -> str:
    """The address at which the provider's true answer arrives."""
    return f"{callback.redirect_uri}?{urlencode({'code': CODE, 'state': STATE, **parameters})}"


Steps = Callable[[Callback, httpx2.AsyncClient], Coroutine[None, None, None]]


@asynccontextmanager
async def browsed(
    steps: Steps,
    host: str = "127.0.0.1",
    **how: bool,
) -> AsyncIterator[str]:
    """A sign-in in whose block the browser does *steps*. Gives the code that arrived."""
    async with httpx2.AsyncClient(trust_env=False) as browser:
        async with listening(host, 0, request_seconds=5, goodbye_seconds=0.5) as waiting:
            task = asyncio.create_task(steps(waiting, browser))
            yield await waiting.answer(take, **how)
        await task


def signed_in(steps: Steps, host: str = "127.0.0.1", **how: bool) -> str:
    async def story() -> str:
        async with browsed(steps, host, **how) as code:
            return code
        raise AssertionError

    return asyncio.run(story())


class Inputs(HTMLParser):
    """The start tags of a page, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_true_answer_ends_on_a_page_without_a_code() -> None:
    seen: list[httpx2.Response] = []

    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        seen.append(await browser.get(good(waiting), follow_redirects=True))

    assert signed_in(steps) == CODE
    assert [(each.status_code, each.headers["location"]) for each in seen[0].history] == [
        (303, "/oauth/done")
    ]
    assert seen[0].url.path == "/oauth/done"
    assert not seen[0].url.query
    assert CODE not in seen[0].text
    assert "Signed in" in seen[0].text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_each_name_of_the_loopback_can_be_listened_at(host: str) -> None:
    if host == "::1" and not HAS_IPV6:
        pytest.skip("this machine has no IPv6")

    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        name = "[::1]" if host == "::1" else host
        assert re.fullmatch(rf"http://{re.escape(name)}:\d+/oauth/callback", waiting.redirect_uri)
        assert (await browser.get(good(waiting))).status_code == 303

    assert signed_in(steps, host) == CODE


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
def test_localhost_is_listened_at_by_both_addresses() -> None:
    async def story() -> None:
        async with listening("localhost", 0) as waiting:
            port = httpx2.URL(waiting.redirect_uri).port
            for address in ("127.0.0.1", "[::1]"):
                async with httpx2.AsyncClient(trust_env=False) as browser:
                    url = f"http://{address}:{port}/oauth/done"
                    given = await browser.get(url, headers={"Host": f"localhost:{port}"})
                    assert given.status_code == 404

    asyncio.run(story())


def test_a_failed_sign_in_is_told_on_the_page() -> None:
    seen: list[str] = []

    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        seen.append((await browser.get(good(waiting), follow_redirects=True)).text)

    async def story() -> None:
        async with browsed(steps):
            raise ClientError("the broker refused")

    with pytest.raises(ClientError, match="the broker refused"):
        asyncio.run(story())
    assert "Not signed in" in seen[0]
    assert "broker" not in seen[0]


def test_a_refusal_of_the_provider_ends_the_wait() -> None:
    seen: list[str] = []

    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        url = good(waiting, error="access_denied", error_description="<script>alert(1)</script>")
        seen.append((await browser.get(url, follow_redirects=True)).text)

    with pytest.raises(ClientError, match="The provider refused"):
        signed_in(steps)
    assert "Not signed in" in seen[0]
    assert "alert" not in seen[0]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/oauth/callback?code=x&state=guess", {}, 400),
        ("GET", f"/oauth/callback?code=x&code=y&state={STATE}", {}, 400),
        ("GET", "/oauth/callback", {}, 400),
        ("GET", f"/oauth/callback/?code=x&state={STATE}", {}, 404),
        ("GET", f"/OAuth/callback?code=x&state={STATE}", {}, 404),
        ("GET", f"/oauth/%63allback?code=x&state={STATE}", {}, 404),
        ("GET", f"//oauth/callback?code=x&state={STATE}", {}, 404),
        ("GET", f"/oauth/callback?code=%ff&state={STATE}", {}, 400),
        ("GET", f"/oauth/callback?state={STATE}&" + "&".join("abcdefghijklmnopqrstuvwxyz" * 2), {}, 400),
        ("GET", "/oauth/done", {}, 404),
        ("GET", "/", {}, 404),
        ("GET", "/favicon.ico", {}, 404),
        ("HEAD", f"/oauth/callback?code=x&state={STATE}", {}, 405),
        ("POST", f"/oauth/callback?code=x&state={STATE}", {}, 405),
        ("OPTIONS", f"/oauth/callback?code=x&state={STATE}", {}, 405),
        ("PUT", f"/oauth/callback?code=x&state={STATE}", {}, 405),
        ("GET", f"/oauth/callback?code=x&state={STATE}", {"Host": "evil.example.com"}, 421),
        ("GET", f"/oauth/callback?code=x&state={STATE}", {"Host": "127.0.0.1"}, 421),
        ("GET", f"/oauth/callback?code=x&state={STATE}", {"Host": "127.0.0.1:1"}, 421),
        ("GET", f"/oauth/callback?code=x&state={STATE}", {"Host": "127.0.0.1.example.com:31111"}, 421),
        ("GET", f"/oauth/callback?code=x&state={STATE}", {"Host": "localhost"}, 421),
        ("GET", f"/oauth/callback?code=x&state={STATE}", {"X-Long": "x" * 100_000}, 400),
    ],
    ids=str,
)  # fmt: skip
def test_after_a_foreign_request_it_goes_on_waiting(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        origin = waiting.redirect_uri.removesuffix("/oauth/callback")
        given = await browser.request(method, origin + path, headers=headers)
        assert given.status_code == status
        assert given.headers["cache-control"] == "no-store"
        assert (await browser.get(good(waiting))).status_code == 303

    assert signed_in(steps) == CODE


def test_only_the_first_answer_counts() -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        assert (await browser.get(good(waiting))).status_code == 303
        assert (await browser.get(good(waiting, code="second"))).status_code == 400

    assert signed_in(steps) == CODE


def test_the_sign_in_address_leads_to_the_provider_once() -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        url = "https://sso.example.com/authorize?state=s&nonce=n"
        start = waiting.start_at(url)
        assert "nonce" not in start
        first, second = await browser.get(start), await browser.get(start)
        assert (first.status_code, first.headers["location"]) == (303, url)
        assert second.status_code == 400
        assert "location" not in second.headers
        assert (await browser.get(good(waiting))).status_code == 400

    with pytest.raises(ClientError, match="opened twice"):
        signed_in(steps)


@pytest.mark.parametrize("path", ["/oauth/start", "/oauth/start/", "/oauth/start/guess"])
def test_a_guessed_sign_in_address_leads_nowhere(path: str) -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        origin = waiting.redirect_uri.removesuffix("/oauth/callback")
        assert (await browser.get(origin + path)).status_code == 404
        waiting.start_at("https://sso.example.com/authorize")
        assert (await browser.get(origin + path)).status_code == 404
        await browser.get(good(waiting))

    assert signed_in(steps) == CODE


def test_nobody_comes() -> None:
    async def story() -> None:
        async with listening(port=0) as waiting:
            await waiting.answer(take, seconds=0.05)

    with pytest.raises(ClientError, match="Nobody signed in"):
        asyncio.run(story())


# Implicit


def test_a_form_of_the_provider_brings_the_id_token() -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        form = {"id_token": "a.b.c", "state": STATE}
        headers = {"Origin": "https://sso.example.com", "Sec-Fetch-Site": "cross-site"}
        given = await browser.post(waiting.redirect_uri, data=form, headers=headers)
        assert (given.status_code, given.headers["location"]) == (303, "/oauth/done")

    assert signed_in(steps, implicit=True) == "a.b.c"


def test_a_fragment_is_read_by_the_listeners_own_script() -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        page = await browser.get(waiting.redirect_uri)
        policy = page.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        parser = Inputs()
        parser.feed(page.text)
        assert [a for tag, a in parser.tags if tag == "script"] == [{"src": "/oauth/fragment.js"}]
        origin = waiting.redirect_uri.removesuffix("/oauth/callback")
        script = await browser.get(f"{origin}/oauth/fragment.js")
        assert script.headers["content-type"].startswith("text/javascript")
        posted = await browser.post(
            f"{origin}/oauth/fragment",
            data={"id_token": "a.b.c", "state": STATE},
            headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"},
        )
        assert posted.status_code == 303

    assert signed_in(steps, implicit=True) == "a.b.c"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "{own}", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "{own}", "Sec-Fetch-Site": "same-site"},
        {"Origin": "{own}", "Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_another_sites_page_posts_no_fragment(headers: dict[str, str]) -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        origin = waiting.redirect_uri.removesuffix("/oauth/callback")
        sent = {name: value.replace("{own}", origin) for name, value in headers.items()}
        form = {"id_token": "a.b.c", "state": STATE}
        given = await browser.post(f"{origin}/oauth/fragment", data=form, headers=sent)
        assert given.status_code == 400
        given = await browser.post(waiting.redirect_uri, data=form)
        assert given.status_code == 303

    assert signed_in(steps, implicit=True) == "a.b.c"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"id_token":"x"}', "application/json"),
        (f"id_token=x&state={STATE}".encode(), "text/plain"),
        (f"id_token=x&state={STATE}".encode(), ""),
        (b"id_token=%ff&state=" + STATE.encode(), "application/x-www-form-urlencoded"),
        (b"x" * 70_000, "application/x-www-form-urlencoded"),
    ],
    ids=["json", "text", "no type", "no text", "long"],
)
def test_a_body_that_is_no_form_is_not_taken(content: bytes, kind: str) -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        headers = {"Content-Type": kind} if kind else {}
        try:
            given = await browser.post(waiting.redirect_uri, content=content, headers=headers)
            assert given.status_code == 400
        except httpx2.TransportError:
            assert len(content) > 65536  # it hangs up before all is sent
        form = {"id_token": "a.b.c", "state": STATE}
        assert (await browser.post(waiting.redirect_uri, data=form)).status_code == 303

    assert signed_in(steps, implicit=True) == "a.b.c"


def test_a_code_sign_in_takes_no_form_and_serves_no_script() -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        form = {"code": "x", "state": STATE}
        origin = waiting.redirect_uri.removesuffix("/oauth/callback")
        assert (await browser.post(waiting.redirect_uri, data=form)).status_code == 405
        assert (await browser.get(f"{origin}/oauth/fragment.js")).status_code == 404
        await browser.get(good(waiting))

    assert signed_in(steps) == CODE


# The pages


def every_page() -> Iterator[callback_pages.Page]:
    for value in vars(callback_pages).values():
        if isinstance(value, callback_pages.Page):
            yield value


@pytest.mark.parametrize("page", list(every_page()), ids=lambda page: str(page.body[:80]))
def test_each_page_is_closed_to_the_outside(page: callback_pages.Page) -> None:
    headers = dict(page.headers)
    assert headers["Cache-Control"] == "no-store"
    own = "same-origin" if page is callback_pages.FRAGMENT else "no-referrer"
    assert headers["Referrer-Policy"] == own
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    parser = Inputs()
    parser.feed(page.body.decode())
    loaded = [a.get("src") or a.get("href") for _, a in parser.tags if {"src", "href"} & a.keys()]
    assert set(loaded) <= {"/oauth/fragment.js"}
    assert page.status in callback_pages.REASONS


# Ports


def test_a_second_sign_in_within_seconds_uses_the_same_port() -> None:
    port = free_port()

    async def story() -> None:
        async with httpx2.AsyncClient(trust_env=False) as browser:
            for _ in range(3):
                async with listening("127.0.0.1", port) as waiting:
                    task = asyncio.create_task(browser.get(good(waiting), follow_redirects=True))
                    assert await waiting.answer(take) == CODE
                assert (await task).status_code == 200

    asyncio.run(story())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_that_is_taken_is_told_with_what_to_do(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ClientError) as caught:
            bind(host, port)
    assert f"Port {port} of this machine is taken." in str(caught.value)
    assert "--port" in caught.value.advice


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
def test_a_program_that_waits_at_the_other_address_of_localhost_gets_no_code() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(ClientError, match="taken"):
            bind("localhost", port)
        (listener,) = bind("127.0.0.1", port).sockets  # the first socket was closed again
        listener.close()


def test_two_sign_ins_do_not_share_a_port() -> None:
    async def story() -> None:
        async with listening(port=0) as first:
            port = httpx2.URL(first.redirect_uri).port or 0
            with pytest.raises(ClientError, match="taken"):
                async with listening(port=port):
                    pass

    asyncio.run(story())


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "example.com", "127.0.0.2"])  # noqa: S104
def test_it_listens_on_this_machine_only(host: str) -> None:
    with pytest.raises(ClientError, match="cannot listen"):
        bind(host, 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_told(port: int) -> None:
    with pytest.raises(ClientError, match="no port"):
        bind("127.0.0.1", port)


# Connections


def test_idle_connections_do_not_keep_the_answer_out() -> None:
    """A browser opens several connections at once and uses only some of them."""

    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        port = httpx2.URL(waiting.redirect_uri).port or 0
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        assert (await browser.get(good(waiting))).status_code == 303
        for _, writer in idle:
            writer.close()

    assert signed_in(steps) == CODE


def test_many_connections_are_closed_at_once() -> None:
    async def steps(waiting: Callback, browser: httpx2.AsyncClient) -> None:
        port = httpx2.URL(waiting.redirect_uri).port or 0
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(64)]
        await asyncio.sleep(0.1)
        dropped = sum(reader.at_eof() or reader.exception() is not None for reader, _ in held)
        assert dropped >= 64 - callback._CONNECTIONS
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.1)
        assert (await browser.get(good(waiting))).status_code == 303

    assert signed_in(steps) == CODE


def test_a_connection_that_says_too_little_is_closed() -> None:
    async def story() -> None:
        async with listening(port=0, request_seconds=0.1) as waiting:
            port = httpx2.URL(waiting.redirect_uri).port or 0
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /oauth/callback?code=")
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(story())
