"""Each flow of `sign_on` against a real Keycloak and a real oidc-provider, and in a real browser."""

from __future__ import annotations

import asyncio
import queue
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from federation.client.connection import open_async_client
from federation.demo.stage import serving
from federation.sign_on.callback import Callback, listening
from federation.sign_on.oauth_errors import ProviderRefused, TokenRefused
from federation.sign_on.provider import Client, OpenIdProvider, Pending, Tokens
from tests.harness.browser import Person
from tests.harness.headless_sign_in import Person as HeadlessPerson
from tests.harness.headless_sign_in import open_as
from tests.harness.keycloak import SUB, Keycloak
from tests.harness.oidc_provider import OidcProvider
from tests.harness.process import in_thread, until
from tests.harness.sign_on_parts import CLI, DASHBOARD, IMPLICIT, ROBOT, SECRETS

pytestmark = pytest.mark.e2e

Real = Keycloak | OidcProvider
PUBLIC = Client(CLI, "openid profile email offline_access")
CONFIDENTIAL = Client(DASHBOARD, "openid email", SECRETS[DASHBOARD])


@pytest.fixture(name="real", params=["keycloak", "oidc_provider"])
def _real(request: pytest.FixtureRequest) -> Real:
    provider: Real = request.getfixturevalue(request.param)
    return provider


def sub_of(real: Real, name: str = "alice") -> str:
    return SUB[name] if isinstance(real, Keycloak) else name


def run(real: Real, client: Client, story: Callable[[OpenIdProvider], Awaitable[Any]]) -> Any:
    """What *story* makes of the provider *real*, as *client* sees it."""

    async def whole() -> Any:
        async with open_async_client() as http:
            return await story(await OpenIdProvider.discover(real.issuer, client, http, time.time))

    # Once a test has used Playwright, this thread has a running event loop.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(whole())).result()


def sign_in(person: Person) -> None:
    """Sign alice in on the provider's page that is open, and wait for our last page."""
    from playwright.sync_api import Error

    try:
        person.sign_in("alice")
    except Error as error:
        # The provider's page for form_post posts itself, while the harness still looks at it.
        if "context was destroyed" not in str(error):
            raise
    person.page.wait_for_url("**/oauth/done")


def visited(person: Person) -> list[str]:
    """The addresses in the history of the person's page."""
    session = person.context.new_cdp_session(person.page)
    entries = session.send("Page.getNavigationHistory")["entries"]
    return [entry["url"] for entry in entries]


def signed_in(real: Real, client: Client, redirect_uri: str, **how: Any) -> Any:
    """The tokens of *client* after alice signed in by form posts, and the provider they are from."""

    async def story(provider: OpenIdProvider) -> Tokens:
        return await code_tokens(provider, redirect_uri, **how)

    return run(real, client, story)


async def code_tokens(
    provider: OpenIdProvider, redirect_uri: str, name: str = "alice", **how: Any
) -> Tokens:
    pending = Pending.fresh(redirect_uri)
    url = provider.authorization_url(pending, **how)

    def follow() -> str:
        with HeadlessPerson(name) as person:
            return person.follow(url, redirect_uri)

    place = await asyncio.to_thread(follow)
    answer = parse_qsl(urlsplit(place).query, keep_blank_values=True)
    return await provider.redeem(provider.code_of(answer, pending), pending)


# Code


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_person_signs_in_by_the_loopback_callback(real: Real, host: str) -> None:
    async def story(provider: OpenIdProvider) -> Tokens:
        async with listening(host, real.ports.callback) as callback:
            pending = Pending.fresh(callback.redirect_uri)
            start = callback.start_at(provider.authorization_url(pending))
            browser = asyncio.create_task(asyncio.to_thread(open_as, "alice", start))
            code = await callback.answer(
                lambda answer: provider.code_of(answer, pending), seconds=20
            )
            tokens = await provider.redeem(code, pending)
        assert await browser == 200
        return tokens

    tokens = run(real, PUBLIC, story)
    assert tokens.claims["sub"] == sub_of(real)
    assert tokens.claims["email"] == "alice@example.com"


def test_a_confidential_client_signs_a_person_in_with_pkce(real: Real) -> None:
    redirect_uri = f"http://127.0.0.1:{real.ports.dashboard}/auth/callback"
    tokens = signed_in(real, CONFIDENTIAL, redirect_uri)
    assert tokens.claims["sub"] == sub_of(real)
    assert tokens.claims["aud"] == DASHBOARD


def test_a_wrong_secret_is_told(real: Real) -> None:
    redirect_uri = f"http://127.0.0.1:{real.ports.dashboard}/auth/callback"
    with pytest.raises(ProviderRefused) as caught:
        signed_in(real, Client(DASHBOARD, "openid", "wrong-secret"), redirect_uri)
    # Keycloak calls it so: https://github.com/keycloak/keycloak/issues/11743
    assert caught.value.error in {"invalid_client", "unauthorized_client"}
    assert "wrong-secret" not in str(caught.value)


@contextmanager
def in_background(
    real: Real, client: Client, story: Callable[[OpenIdProvider, Callback, Pending], Awaitable[Any]]
) -> Iterator[tuple[queue.Queue[str], Future[Any]]]:
    """A sign-in that waits for a browser, in a thread of its own, since Playwright has this one."""
    addresses: queue.Queue[str] = queue.Queue()

    async def whole(provider: OpenIdProvider) -> Any:
        async with listening("127.0.0.1", real.ports.callback) as callback:
            pending = Pending.fresh(callback.redirect_uri)
            implicit = client.client_id == IMPLICIT
            url = provider.authorization_url(pending, implicit=implicit)
            addresses.put(callback.start_at(url))
            return await story(provider, callback, pending)

    with ThreadPoolExecutor(1) as pool:
        yield addresses, pool.submit(run, real, client, whole)


def test_no_code_stays_in_the_browser(real: Real, person: Person) -> None:
    async def story(provider: OpenIdProvider, callback: Callback, pending: Pending) -> Tokens:
        code = await callback.answer(lambda answer: provider.code_of(answer, pending), seconds=20)
        return await provider.redeem(code, pending)

    with in_background(real, PUBLIC, story) as (addresses, tokens):
        person.page.goto(addresses.get(timeout=60))
        sign_in(person)
        assert tokens.result(60).claims["sub"] == sub_of(real)
        assert person.page.inner_text("h1") == "Signed in"
        assert not [address for address in visited(person) if re.search(r"[?&#]code=", address)]
    assert not [error for error in person.errors if "Content Security Policy" in error]


def test_a_sign_in_that_fails_is_told_in_the_browser(real: Real, person: Person) -> None:
    async def story(provider: OpenIdProvider, callback: Callback, pending: Pending) -> Tokens:
        code = await callback.answer(lambda answer: provider.code_of(answer, pending), seconds=20)
        return await provider.redeem(code, replace(pending, verifier="another" * 7))

    with in_background(real, PUBLIC, story) as (addresses, tokens):
        person.page.goto(addresses.get(timeout=60))
        sign_in(person)
        assert person.page.inner_text("h1") == "Not signed in"
        with pytest.raises(ProviderRefused) as caught:
            tokens.result(60)
    assert caught.value.error == "invalid_grant"


# Implicit


@pytest.mark.parametrize("modes", [("form_post",), ()], ids=["form_post", "fragment"])
def test_a_person_signs_in_by_the_implicit_flow(
    real: Real, person: Person, modes: tuple[str, ...]
) -> None:
    async def story(provider: OpenIdProvider) -> Tokens:
        assert "form_post" in provider.metadata.response_modes
        metadata = replace(provider.metadata, response_modes=modes)
        provider = replace(provider, metadata=metadata)
        async with listening("127.0.0.1", real.ports.callback) as callback:
            pending = Pending.fresh(callback.redirect_uri)
            url = provider.authorization_url(pending, implicit=True)
            assert ("response_mode=form_post" in url) == bool(modes)
            addresses.put(callback.start_at(url))

            def take(answer: Any) -> Any:
                provider.id_token_of(answer, pending)
                return answer

            answer = await callback.answer(take, implicit=True, seconds=20)
            return await provider.implicit_tokens(answer, pending)

    addresses: queue.Queue[str] = queue.Queue()
    with ThreadPoolExecutor(1) as pool:
        tokens = pool.submit(run, real, Client(IMPLICIT, "openid profile email"), story)
        person.page.goto(addresses.get(timeout=60))
        sign_in(person)
        assert tokens.result(60).claims["sub"] == sub_of(real)
        assert person.page.inner_text("h1") == "Signed in"
        assert not [address for address in visited(person) if "id_token=" in address]
    assert not [error for error in person.errors if "Content Security Policy" in error]


# Another device


def test_a_person_signs_in_on_another_device(real: Real) -> None:
    async def story(provider: OpenIdProvider) -> Tokens:
        begun = await provider.begin_device()
        assert begun.verification_uri_complete
        approving = asyncio.to_thread(open_as, "alice", begun.verification_uri_complete)
        tokens, _ = await asyncio.gather(provider.finish_device(begun), approving)
        return tokens

    tokens = run(real, Client(CLI, "openid email"), story)
    assert tokens.claims["sub"] == sub_of(real)


# The client itself


def test_a_client_signs_in_itself(keycloak: Keycloak) -> None:
    async def story(provider: OpenIdProvider) -> Tokens:
        return await provider.client_credentials()

    client = Client(ROBOT, "openid profile email", SECRETS[ROBOT])
    tokens = run(keycloak, client, story)
    assert not tokens.id_token
    assert tokens.claims["azp"] == ROBOT
    assert "https://gateway.example.com" in tokens.claims["aud"]


def test_an_opaque_access_token_of_a_client_is_told(oidc_provider: OidcProvider) -> None:
    async def story(provider: OpenIdProvider) -> Tokens:
        return await provider.client_credentials()

    with pytest.raises(TokenRefused, match="opaque"):
        run(oidc_provider, Client(ROBOT, "openid", SECRETS[ROBOT]), story)


# Afterwards


def test_a_refresh_token_counts_once_and_can_be_revoked(real: Real) -> None:
    async def story(provider: OpenIdProvider) -> None:
        first = await code_tokens(provider, real.ports.callback_url, prompt="consent")
        # Keycloak takes a token for an old one if it was issued before the last refresh, and
        # compares whole seconds.
        await asyncio.sleep(1.1)
        second = await provider.refresh(first.refresh_token, sub_of(real))
        assert second.claims["sub"] == sub_of(real)
        assert second.refresh_token != first.refresh_token
        with pytest.raises(TokenRefused) as another:
            await provider.refresh(second.refresh_token, sub_of(real, "bob"))
        assert another.value.reason == "wrong_subject"
        third = await code_tokens(provider, real.ports.callback_url, prompt="consent")
        assert await provider.revoke(third.refresh_token)
        for over in (first, third):
            with pytest.raises(ProviderRefused) as caught:
                await provider.refresh(over.refresh_token, sub_of(real))
            assert caught.value.error == "invalid_grant"

    run(real, PUBLIC, story)


# Tokens in place of the ID token


def test_no_other_token_passes_for_the_id_token(real: Real) -> None:
    async def story(provider: OpenIdProvider) -> dict[str, str]:
        tokens = await code_tokens(provider, real.ports.callback_url, prompt="consent")
        reasons = {}
        given = {
            "access token": tokens.access_token,
            "refresh token": tokens.refresh_token,
            "ID token of another client": foreign.id_token,
            "ID token of another sign-in": tokens.id_token,
        }
        for kind, token in given.items():
            pending = Pending.fresh(real.ports.callback_url)
            answer = [("id_token", token), ("state", pending.state), ("iss", provider.issuer)]
            with pytest.raises(TokenRefused) as caught:
                await provider.implicit_tokens(answer, pending)
            reasons[kind] = caught.value.reason
        return reasons

    redirect_uri = f"http://127.0.0.1:{real.ports.dashboard}/auth/callback"
    foreign = signed_in(real, CONFIDENTIAL, redirect_uri)
    opaque = isinstance(real, OidcProvider)
    assert run(real, PUBLIC, story) == {
        "access token": "malformed_token" if opaque else "wrong_audience",
        "refresh token": "malformed_token" if opaque else "unsupported_algorithm",
        "ID token of another client": "wrong_audience",
        "ID token of another sign-in": "wrong_nonce",
    }


def test_the_logout_token_of_keycloak_ends_a_session_and_begins_none(keycloak: Keycloak) -> None:
    told: list[str] = []

    async def receive(request: Request) -> Response:
        told.append(dict(parse_qsl((await request.body()).decode()))["logout_token"])
        return Response(status_code=200)

    app = Starlette(routes=[Route("/auth/backchannel-logout", receive, methods=["POST"])])
    listener = socket.create_server(("127.0.0.1", keycloak.ports.dashboard))
    redirect_uri = f"http://127.0.0.1:{keycloak.ports.dashboard}/auth/callback"
    with in_thread(lambda: serving(app, listener)):
        tokens = signed_in(keycloak, CONFIDENTIAL, redirect_uri)
        keycloak.sign_out("alice")
        assert until(lambda: any(told), 30)

    async def story(provider: OpenIdProvider) -> None:
        ended = [await provider.verify_logout_token(token) for token in told]
        assert tokens.claims["sid"] in {each.sid for each in ended}
        assert {each.sub for each in ended} == {SUB["alice"]}
        pending = Pending.fresh(redirect_uri)
        answer = [("id_token", told[0]), ("state", pending.state), ("iss", provider.issuer)]
        with pytest.raises(TokenRefused) as caught:
            await provider.implicit_tokens(answer, pending)
        assert caught.value.reason == "wrong_token_type"
        with pytest.raises(TokenRefused):
            await provider.verify_logout_token(tokens.id_token)

    run(keycloak, CONFIDENTIAL, story)


def test_the_answer_of_another_provider_is_foreign(
    keycloak: Keycloak, oidc_provider: OidcProvider
) -> None:
    """Both name themselves in their answers (RFC 9207), so a mix-up is noticed."""
    for real in (keycloak, oidc_provider):

        async def story(provider: OpenIdProvider) -> bool:
            return provider.metadata.names_itself

        assert run(real, PUBLIC, story)
        metadata = httpx2.get(
            f"{real.issuer}/.well-known/openid-configuration", timeout=60, trust_env=False
        )
        assert metadata.json()["issuer"] == real.issuer
