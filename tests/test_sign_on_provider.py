"""Signing in at an OpenID provider: each flow, refresh, revocation, sign-out, and what is told."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from federation.client import ClientError
from federation.sign_on.oauth_errors import ProviderRefused, TokenRefused
from federation.sign_on.provider import Client, OpenIdProvider, Pending, Tokens
from tests.harness.clock import Clock
from tests.harness.issuer import answering
from tests.harness.openid_provider import (
    AUTHORITY,
    CLIENT_ID,
    FakeProvider,
    challenge_of,
    form_of,
)
from tests.harness.sign_in import PUBLIC, REDIRECT_URI, opened, sign_in

SECRET = "p%:ä+/ secret"


def confidential(*methods: str) -> FakeProvider:
    return FakeProvider(secrets={CLIENT_ID: SECRET}, auth_methods=list(methods))


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)


def authorization_url(fake: FakeProvider, pending: Pending, **how: object) -> str:
    async def made() -> str:
        provider = await opened(fake)
        return provider.authorization_url(pending, **how)  # type: ignore[arg-type]

    return asyncio.run(made())


# The authorization URL


def test_the_authorization_url_asks_for_a_code_with_pkce_state_and_nonce() -> None:
    pending = Pending.fresh(REDIRECT_URI)
    url = authorization_url(FakeProvider(), pending)
    assert url.startswith(f"{AUTHORITY}/authorize?")
    assert query_of(url) == {
        "response_type": ["code"],
        "client_id": [CLIENT_ID],
        "redirect_uri": [REDIRECT_URI],
        "scope": ["openid profile email"],
        "state": [pending.state],
        "nonce": [pending.nonce],
        "code_challenge": [challenge_of(pending.verifier)],
        "code_challenge_method": ["S256"],
    }
    assert pending.verifier not in url


def test_an_endpoint_keeps_its_own_query() -> None:
    fake = FakeProvider(
        metadata_changes={"authorization_endpoint": "https://sso.example.com/authorize?p=b2c"}
    )
    query = query_of(authorization_url(fake, Pending.fresh(REDIRECT_URI)))
    assert query["p"] == ["b2c"]
    assert query["response_type"] == ["code"]


def test_prompt_is_passed_on() -> None:
    url = authorization_url(FakeProvider(), Pending.fresh(REDIRECT_URI), prompt="select_account")
    assert query_of(url)["prompt"] == ["select_account"]


@pytest.mark.parametrize(
    ("modes", "mode"),
    [(["query", "fragment", "form_post"], ["form_post"]), (["query", "fragment"], None)],
)
def test_the_implicit_flow_asks_for_an_id_token_alone(
    modes: list[str], mode: list[str] | None
) -> None:
    fake = FakeProvider(metadata_changes={"response_modes_supported": modes})
    query = query_of(authorization_url(fake, Pending.fresh(REDIRECT_URI), implicit=True))
    assert query["response_type"] == ["id_token"]
    assert query.get("response_mode") == mode
    assert "nonce" in query
    assert "code_challenge" not in query


def test_each_sign_in_has_values_of_its_own() -> None:
    one, other = Pending.fresh(REDIRECT_URI), Pending.fresh(REDIRECT_URI)
    values = [one.state, one.nonce, one.verifier, other.state, other.nonce, other.verifier]
    assert len(set(values)) == 6
    assert all(len(value) >= 43 for value in values)


# Code


def test_a_person_signs_in_with_a_code() -> None:
    fake = FakeProvider()
    tokens = asyncio.run(sign_in(fake))
    assert tokens.claims["sub"] == "alice"
    assert tokens.subject_token == tokens.id_token
    assert tokens.refresh_token in fake.sessions
    (request,) = fake.asked_for("token")
    assert form_of(request)["client_id"] == CLIENT_ID
    assert "authorization" not in request.headers


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_client_with_a_secret_uses_pkce_too(method: str) -> None:
    fake = confidential(method)
    tokens = asyncio.run(sign_in(fake, Client(CLIENT_ID, "email", SECRET)))
    assert tokens.claims["sub"] == "alice"
    (request,) = fake.asked_for("token")
    form = form_of(request)
    assert "code_verifier" in form
    assert ("client_secret" in form) == (method == "client_secret_post")
    assert ("authorization" in request.headers) == (method == "client_secret_basic")


def test_a_secret_in_a_basic_header_is_form_encoded_first() -> None:
    fake = confidential("client_secret_basic")
    asyncio.run(sign_in(fake, Client(CLIENT_ID, "", SECRET)))
    header = fake.asked_for("token")[0].headers["authorization"]
    assert b64decode(header.removeprefix("Basic ")) == b"openfaas:p%25%3A%C3%A4%2B%2F+secret"


def test_basic_is_meant_where_the_provider_names_no_method() -> None:
    fake = confidential("client_secret_basic")
    fake.metadata_changes["token_endpoint_auth_methods_supported"] = None
    asyncio.run(sign_in(fake, Client(CLIENT_ID, "", SECRET)))


def test_a_provider_that_takes_no_secret_is_told() -> None:
    with pytest.raises(ClientError, match="takes no client secret: it takes private_key_jwt"):
        asyncio.run(sign_in(confidential("private_key_jwt"), Client(CLIENT_ID, "", SECRET)))


def test_a_wrong_secret_is_told_with_what_to_do() -> None:
    fake = confidential("client_secret_basic")
    with pytest.raises(ProviderRefused) as caught:
        asyncio.run(sign_in(fake, Client(CLIENT_ID, "", "guess")))
    assert caught.value.error == "invalid_client"
    assert "Check the client id and the client secret" in str(caught.value)
    assert "guess" not in str(caught.value)


def test_a_provider_that_gives_no_id_token_is_told() -> None:
    with pytest.raises(ClientError, match="gave no ID token"):
        asyncio.run(sign_in(FakeProvider(id_token="")))


def test_an_id_token_that_is_signed_with_the_client_secret_is_told() -> None:
    fake = FakeProvider(header_changes={"alg": "HS256"})
    with pytest.raises(TokenRefused, match="RS256 or ES256"):
        asyncio.run(sign_in(fake))


@pytest.mark.parametrize(
    ("answer", "error", "advice"),
    [
        ([("error", "access_denied")], "access_denied", "said no"),
        (
            [
                ("error", "invalid_request"),
                ("error_description", "Invalid parameter: redirect_uri"),
            ],
            "invalid_request",
            "Register the redirect URI",
        ),
        ([("error", "login_required")], "login_required", "without --prompt none"),
        ([("error", "unauthorized_client")], "unauthorized_client", "operator of the provider"),
        ([("error", "odd")], "odd", "can say more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_in_the_answer_is_a_sentence(
    answer: list[tuple[str, str]], error: str, advice: str
) -> None:
    async def story() -> None:
        fake = FakeProvider()
        provider = await opened(fake)
        pending = Pending.fresh(REDIRECT_URI)
        provider.code_of([*answer, ("state", pending.state), ("iss", fake.iss)], pending)

    with pytest.raises(ProviderRefused) as caught:
        asyncio.run(story())
    assert caught.value.error == error
    assert advice in caught.value.advice


# Implicit


def test_a_person_signs_in_by_the_implicit_flow() -> None:
    tokens = asyncio.run(sign_in(FakeProvider(), implicit=True))
    assert tokens.claims["sub"] == "alice"
    assert (tokens.access_token, tokens.refresh_token) == ("", "")


# Another device


@dataclass
class Waiting:
    """Waits by moving a clock, and remembers how long each time."""

    clock: Clock = field(default_factory=lambda: Clock(1_700_000_000.0))
    paused: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.paused.append(seconds)
        self.clock.advance(seconds)


def by_device(fake: FakeProvider, waiting: Waiting) -> Tokens:
    async def story() -> Tokens:
        fake.clock = waiting.clock
        provider = await opened(fake, pause=waiting)
        begun = await provider.begin_device()
        assert begun.user_code == "WDJB-MJHT"
        assert begun.verification_uri == f"{AUTHORITY}/code"
        return await provider.finish_device(begun)

    return asyncio.run(story())


def test_a_person_signs_in_on_another_device() -> None:
    waiting = Waiting()
    fake = FakeProvider(pending_answers=["authorization_pending", "slow_down"])
    tokens = by_device(fake, waiting)
    assert tokens.claims["sub"] == "alice"
    assert waiting.paused == [5, 5, 10]


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "invalid_client"])
def test_a_refusal_ends_the_sign_in_on_another_device(error: str) -> None:
    waiting = Waiting()
    with pytest.raises(ProviderRefused) as caught:
        by_device(FakeProvider(pending_answers=["authorization_pending", error]), waiting)
    assert caught.value.error == error
    assert len(waiting.paused) == 2


def test_a_sign_in_on_another_device_ends_when_its_code_expires() -> None:
    waiting = Waiting()
    with pytest.raises(ProviderRefused) as caught:
        by_device(FakeProvider(pending_answers=["authorization_pending"] * 1000), waiting)
    assert caught.value.error == "expired_token"
    assert sum(waiting.paused) < 600


def test_an_answer_that_does_not_come_makes_the_next_try_later() -> None:
    waiting, fake = Waiting(), FakeProvider()
    answers = [answering(503, text="busy"), fake._token]

    async def failing_once(request: httpx2.Request) -> httpx2.Response:
        if len(answers) > 1:
            answers.pop(0)
            raise httpx2.ConnectTimeout("no answer", request=request)
        return await answers[0](request)

    fake.endpoints["token"] = failing_once
    assert by_device(fake, waiting).claims["sub"] == "alice"
    assert waiting.paused == [5, 10]


def test_a_provider_without_the_device_flow_is_told() -> None:
    fake = FakeProvider(metadata_changes={"device_authorization_endpoint": None})

    async def story() -> None:
        provider = await opened(fake)
        assert not provider.has_device_flow
        await provider.begin_device()

    with pytest.raises(ClientError, match="no sign-in on another device"):
        asyncio.run(story())


# The client itself


def test_a_client_signs_in_itself_and_asks_for_no_scope_of_people() -> None:
    fake = FakeProvider(secrets={"robot": SECRET})

    async def story() -> Tokens:
        client = Client("robot", "openid profile email deploy", SECRET)
        return await (await opened(fake, client)).client_credentials()

    tokens = asyncio.run(story())
    assert tokens.claims["sub"] == "service-account-robot"
    assert tokens.subject_token == tokens.access_token
    assert form_of(fake.asked_for("token")[0])["scope"] == "deploy"


def test_a_client_without_a_secret_does_not_sign_in_itself() -> None:
    async def story() -> None:
        await (await opened(FakeProvider())).client_credentials()

    with pytest.raises(ClientError, match="needs a client secret"):
        asyncio.run(story())


def test_an_opaque_access_token_of_a_client_is_told() -> None:
    fake = FakeProvider(secrets={"robot": SECRET})
    fake.endpoints["token"] = answering(json={"access_token": "opaque", "token_type": "Bearer"})

    async def story() -> None:
        await (await opened(fake, Client("robot", "", SECRET))).client_credentials()

    with pytest.raises(TokenRefused, match="opaque"):
        asyncio.run(story())


# Afterwards


@pytest.mark.parametrize("rotates", [True, False])
def test_a_refresh_gives_new_tokens_and_the_refresh_token_to_keep(rotates: bool) -> None:
    fake = FakeProvider(rotates=rotates)

    async def story() -> tuple[Tokens, Tokens]:
        first = await sign_in(fake)
        provider = await opened(fake)
        return first, await provider.refresh(first.refresh_token, "alice")

    first, second = asyncio.run(story())
    assert second.claims["sub"] == "alice"
    assert second.refresh_token in fake.sessions
    assert (second.refresh_token == first.refresh_token) == (not rotates)


def test_a_session_that_is_over_is_told_as_invalid_grant() -> None:
    async def story() -> None:
        await (await opened(FakeProvider())).refresh("gone", "alice")

    with pytest.raises(ProviderRefused) as caught:
        asyncio.run(story())
    assert caught.value.error == "invalid_grant"
    assert "Sign in again" in caught.value.advice


def test_revoking_ends_the_session_at_the_provider() -> None:
    fake = FakeProvider()

    async def story() -> bool:
        tokens = await sign_in(fake)
        done = await (await opened(fake)).revoke(tokens.refresh_token)
        assert fake.revoked == [tokens.refresh_token]
        return done

    assert asyncio.run(story())
    assert not fake.sessions


def test_a_provider_without_revocation_says_so() -> None:
    async def story() -> bool:
        fake = FakeProvider(metadata_changes={"revocation_endpoint": None})
        return await (await opened(fake)).revoke("any")

    assert not asyncio.run(story())


def test_the_address_of_the_sign_out_and_its_form() -> None:
    async def provider() -> OpenIdProvider:
        return await opened(FakeProvider())

    signed_out = asyncio.run(provider())
    assert signed_out.ends_sessions
    url = signed_out.sign_out_url("", "https://dashboard.example.com/bye", "s1")
    assert query_of(url) == {
        "client_id": [CLIENT_ID],
        "post_logout_redirect_uri": ["https://dashboard.example.com/bye"],
        "state": ["s1"],
    }
    address, fields = signed_out.sign_out_form("id-token")
    assert address == f"{AUTHORITY}/logout"
    assert dict(fields) == {"client_id": CLIENT_ID, "id_token_hint": "id-token"}


def test_a_provider_that_ends_no_sessions_has_no_address_for_it() -> None:
    async def url() -> str:
        provider = await opened(FakeProvider(metadata_changes={"end_session_endpoint": None}))
        assert not provider.ends_sessions
        return provider.sign_out_url("", "https://dashboard.example.com/bye")

    assert asyncio.run(url()) == ""


def test_a_logout_token_ends_a_session() -> None:
    fake = FakeProvider()

    async def story() -> None:
        ended = await (await opened(fake)).verify_logout_token(fake.logout_token())
        assert (ended.sid, ended.sub, ended.jti) == ("s-1", "alice", "l-1")
        assert ended.expires - ended.issued == 120

    asyncio.run(story())


def test_keys_that_the_provider_replaced_are_fetched_anew() -> None:
    fake = FakeProvider()

    async def story() -> None:
        provider = await opened(fake)
        for number in range(2):
            fake.keys = (type(fake.keys[0])(f"k{number}", "ES256", which=number),)
            pending = Pending.fresh(REDIRECT_URI)
            code = provider.code_of(fake.sign_in(provider.authorization_url(pending)), pending)
            assert (await provider.redeem(code, pending)).claims["sub"] == "alice"

    asyncio.run(story())
    assert len(fake.asked_for("jwks")) == 2


# What is never shown


def test_no_repr_shows_a_secret() -> None:
    fake = FakeProvider(secrets={CLIENT_ID: "top-secret"}, auth_methods=["client_secret_basic"])
    client = Client(CLIENT_ID, "", "top-secret")

    async def story() -> list[object]:
        provider = await opened(fake, client)
        pending = Pending.fresh(REDIRECT_URI)
        begun = await provider.begin_device()
        shown = [client, pending, begun, provider, await sign_in(fake, client)]
        hidden = [pending.state, pending.nonce, pending.verifier, begun.device_code]
        return [*map(repr, shown), hidden]

    *shown, hidden = asyncio.run(story())
    for text in shown:
        assert "top-secret" not in str(text)
        assert "eyJ" not in str(text)
        assert not any(secret in str(text) for secret in hidden)  # type: ignore[attr-defined]


def test_an_error_of_the_network_names_the_server_and_no_secret() -> None:
    fake = FakeProvider()

    async def away(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("connection refused", request=request)

    fake.endpoints["token"] = away
    with pytest.raises(ClientError) as caught:
        asyncio.run(sign_in(fake, PUBLIC))
    assert str(caught.value).startswith("sso.example.com could not be reached: no connection.")
    assert "verifier" not in str(caught.value)
