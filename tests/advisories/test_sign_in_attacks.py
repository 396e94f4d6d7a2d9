"""
Attacks on a sign-in: by a page, by another provider, by the provider itself, or by a stolen token.

RFC 9700 lists most of them. Each must keep failing, and each token with its own reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from federation.client import ClientError
from federation.client.connection import open_async_client
from federation.sign_on.oauth_errors import ProviderRefused, TokenRefused
from federation.sign_on.provider import Client, ForeignAnswer, OpenIdProvider, Pending
from tests.harness.certificates import Authority
from tests.harness.issuer import FakeKey, answering, compact
from tests.harness.openid_provider import (
    AUTHORITY,
    CLIENT_ID,
    FakeProvider,
    Grant,
    challenge_of,
    form_of,
)
from tests.harness.process import in_thread
from tests.harness.raw_server import http_answer, raw_server
from tests.harness.sign_in import PUBLIC, REDIRECT_URI, opened, refused, sign_in

OTHER = "https://other.example.com"


def judged(fake: FakeProvider, change: Callable[[dict[str, str]], Any]) -> str:
    """The code in an answer of *fake* after *change*, which may give pairs in its place."""

    async def story() -> str:
        provider = await opened(fake)
        pending = Pending.fresh(REDIRECT_URI)
        answer = dict(fake.sign_in(provider.authorization_url(pending)))
        changed = change(answer)
        return provider.code_of(changed if changed is not None else [*answer.items()], pending)

    return asyncio.run(story())


# Answers that are not ours


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer.update(state="guess"),
        lambda answer: answer.update(state=""),
        lambda answer: answer.update(state=answer["state"] + "x"),
        lambda answer: answer.update(state="é\ud800"),
        lambda answer: [pair for pair in answer.items() if pair[0] != "state"],
        lambda answer: answer.update(iss=OTHER),
        lambda answer: answer.update(iss=AUTHORITY + "/"),
        lambda answer: answer.update(iss=""),
        lambda answer: [pair for pair in answer.items() if pair[0] != "iss"],
        lambda answer: [*answer.items(), ("code", answer["code"])],
        lambda answer: [*answer.items(), ("state", answer["state"])],
        lambda answer: [*answer.items(), ("state", "other")],
        lambda answer: [*answer.items(), ("iss", answer["iss"])],
        lambda answer: [*answer.items(), ("any", "1"), ("any", "2")],
        lambda answer: answer.update(error="access_denied"),
        lambda answer: [pair for pair in answer.items() if pair[0] != "code"],
        lambda answer: answer.update(code=""),
        lambda answer: [*answer.items(), *((f"p{n}", "") for n in range(50))],
        lambda _answer: [],
    ],
    ids=[
        *("state of another", "empty state", "longer state", "no text as state", "no state"),
        *("iss of another", "iss with a slash", "empty iss", "no iss where it is promised"),
        *("code twice", "state twice", "two states", "iss twice", "anything twice"),
        *("code and error", "neither code nor error", "empty code", "many", "nothing"),
    ],
)  # fmt: skip
def test_a_foreign_answer_is_not_taken(change: Callable[[dict[str, str]], Any]) -> None:
    with pytest.raises(ForeignAnswer):
        judged(FakeProvider(), change)


def test_the_right_answer_is_taken() -> None:
    assert judged(FakeProvider(), lambda answer: None)


def test_iss_is_checked_also_where_it_is_not_promised() -> None:
    fake = FakeProvider(names_itself=False)
    assert judged(fake, lambda answer: None)
    with pytest.raises(ForeignAnswer):
        judged(fake, lambda answer: answer.update(iss=OTHER))


def test_an_implicit_answer_is_known_by_the_iss_of_its_token_or_its_own() -> None:
    async def taken(*changes: tuple[str, str]) -> str:
        provider = await opened(FakeProvider())
        pending = Pending.fresh(REDIRECT_URI)
        return provider.id_token_of([("state", pending.state), *changes], pending)

    assert asyncio.run(taken(("id_token", "t")))
    for changes in (
        [("id_token", "t"), ("iss", OTHER)],
        [("error", "access_denied")],  # a refusal has no token that would name its provider
        [("error", "access_denied"), ("id_token", "")],
    ):
        with pytest.raises(ForeignAnswer):
            asyncio.run(taken(*changes))


def test_a_foreign_refusal_does_not_end_the_sign_in() -> None:
    with pytest.raises(ForeignAnswer):
        judged(FakeProvider(), lambda _answer: [("error", "access_denied"), ("state", "guess")])


def test_an_empty_state_of_a_broken_sign_in_fits_nothing() -> None:
    async def story() -> None:
        pending = Pending(REDIRECT_URI, "", "", "")
        provider = await opened(FakeProvider(names_itself=False))
        provider.code_of([("code", "c"), ("state", "")], pending)

    with pytest.raises(ForeignAnswer):
        asyncio.run(story())


def test_markup_and_commands_in_a_refusal_are_shown_as_text_on_one_line() -> None:
    description = "<script>alert(1)</script>\n::error::x\x1b[2J##vso[task.setvariable]" + "x" * 9999
    with pytest.raises(ProviderRefused) as caught:
        judged(
            FakeProvider(),
            lambda answer: [
                ("error", "access_denied\n::set-output"),
                ("error_description", description),
                ("state", answer["state"]),
                ("iss", AUTHORITY),
            ],
        )
    problem = caught.value.problem
    assert problem.isprintable()
    assert len(problem) < 600
    assert "##vso[" not in problem


# Codes


def test_a_code_that_is_injected_is_of_no_use_without_its_verifier() -> None:
    """Mallory puts alice's code, stolen from her browser, into an answer to a sign-in of his own."""

    async def story() -> None:
        fake = FakeProvider()
        provider = await opened(fake)
        hers, his = Pending.fresh(REDIRECT_URI), Pending.fresh(REDIRECT_URI)
        code = provider.code_of(fake.sign_in(provider.authorization_url(hers)), hers)
        await provider.redeem(code, his)

    with pytest.raises(ProviderRefused) as caught:
        asyncio.run(story())
    assert caught.value.error == "invalid_grant"


def test_a_code_that_is_injected_is_found_by_its_nonce_where_pkce_is_not_checked() -> None:
    async def story() -> None:
        fake = FakeProvider(checks_pkce=False)
        provider = await opened(fake)
        hers, his = Pending.fresh(REDIRECT_URI), Pending.fresh(REDIRECT_URI)
        code = provider.code_of(fake.sign_in(provider.authorization_url(hers)), hers)
        await provider.redeem(code, his)

    with pytest.raises(TokenRefused) as caught:
        asyncio.run(story())
    assert caught.value.reason == "wrong_nonce"


@pytest.mark.parametrize("methods", [["plain"], [], None], ids=str)
def test_pkce_is_s256_whatever_the_provider_offers(methods: list[str] | None) -> None:
    fake = FakeProvider(metadata_changes={"code_challenge_methods_supported": methods})

    async def story() -> tuple[str, Pending]:
        pending = Pending.fresh(REDIRECT_URI)
        return (await opened(fake)).authorization_url(pending), pending

    url, pending = asyncio.run(story())
    assert "code_challenge_method=S256" in url
    assert f"code_challenge={challenge_of(pending.verifier)}" in url
    assert pending.verifier not in url


def test_a_code_counts_once() -> None:
    async def story() -> None:
        fake = FakeProvider()
        provider = await opened(fake)
        pending = Pending.fresh(REDIRECT_URI)
        code = provider.code_of(fake.sign_in(provider.authorization_url(pending)), pending)
        await provider.redeem(code, pending)
        await provider.redeem(code, pending)

    with pytest.raises(ProviderRefused) as caught:
        asyncio.run(story())
    assert caught.value.error == "invalid_grant"


# Tokens in place of the ID token


@pytest.mark.parametrize("implicit", [False, True], ids=["code", "implicit"])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonce": "another"}, "wrong_nonce"),
        ({"nonce": None}, "wrong_nonce"),
        ({"nonce": ["list"]}, "wrong_nonce"),
        ({"nonce": ""}, "wrong_nonce"),
        ({"aud": "another-client"}, "wrong_audience"),
        ({"aud": []}, "wrong_audience"),
        ({"aud": None}, "missing_claim"),
        ({"azp": "another-client"}, "wrong_party"),
        ({"aud": [CLIENT_ID, "another-client"]}, "wrong_party"),
        ({"aud": [CLIENT_ID, "another-client"], "azp": "another-client"}, "wrong_party"),
        ({"iss": OTHER}, "untrusted_issuer"),
        ({"iss": AUTHORITY + "/"}, "untrusted_issuer"),
        ({"iss": None}, "missing_claim"),
        ({"sub": None}, "missing_claim"),
        ({"sub": ""}, "missing_claim"),
        ({"sub": 7}, "malformed_token"),
        ({"exp": None}, "missing_claim"),
        ({"iat": None}, "missing_claim"),
        ({"exp": 1_699_999_000}, "expired"),
        ({"iat": 1_700_009_000}, "not_yet_valid"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, "wrong_token_type"),
    ],
    ids=str,
)  # fmt: skip
def test_an_id_token_with_a_wrong_claim_is_refused(
    changes: dict[str, object], reason: str, implicit: bool
) -> None:
    assert refused(FakeProvider(claims_changes=changes), implicit=implicit) == reason


def test_several_audiences_are_taken_where_azp_is_this_client() -> None:
    changes: dict[str, object] = {"aud": [CLIENT_ID, "another-client"], "azp": CLIENT_ID}
    asyncio.run(sign_in(FakeProvider(claims_changes=changes)))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "none"}, "unsupported_algorithm"),
        ({"alg": "None"}, "unsupported_algorithm"),
        ({"alg": "HS256"}, "unsupported_algorithm"),
        ({"alg": None}, "unsupported_algorithm"),
        ({"crit": ["b64"]}, "unsupported_algorithm"),
        ({"typ": "at+jwt"}, "wrong_token_type"),
        ({"typ": "application/at+jwt"}, "wrong_token_type"),
        ({"typ": "logout+jwt"}, "wrong_token_type"),
        ({"typ": "dpop+jwt"}, "wrong_token_type"),
        ({"kid": "unknown"}, "unknown_key"),
    ],
    ids=str,
)
def test_an_id_token_with_a_wrong_header_is_refused(header: dict[str, object], reason: str) -> None:
    assert refused(FakeProvider(header_changes=header)) == reason


def test_an_unsigned_id_token_is_refused() -> None:
    fake = FakeProvider()
    claims = fake.claims(Grant(CLIENT_ID, "alice", "n"))
    fake.id_token = compact({"alg": "none"}, claims, lambda _message: b"")
    assert refused(fake) == "malformed_token"
    fake.id_token = compact({"alg": "none"}, claims, lambda _message: b"x")
    assert refused(fake) == "unsupported_algorithm"


@pytest.mark.parametrize("secret", [b"client-secret", b"public key"])
def test_an_id_token_that_is_signed_with_the_client_secret_is_refused(secret: bytes) -> None:
    fake = FakeProvider()
    fake.id_token = compact(
        {"alg": "HS256", "kid": "k1"},
        fake.claims(Grant(CLIENT_ID, "alice", "n")),
        lambda message: hmac.digest(secret, message, hashlib.sha256),
    )
    assert refused(fake) == "unsupported_algorithm"


def test_keys_that_a_token_brings_along_are_not_used() -> None:
    own = FakeKey("mallory", "ES256", which=9)
    fake = FakeProvider()
    claims = fake.claims(Grant(CLIENT_ID, "alice", "n"))
    for header in ({"jku": f"{OTHER}/jwks"}, {"jwk": own.jwk()}, {"x5u": OTHER}):
        fake.id_token = compact({"alg": "ES256", "kid": "k1", **header}, claims, own.sign)
        assert refused(fake) == "bad_signature"
    assert not [each for each in fake.asked if each.url.host != "sso.example.com"]


def test_an_access_token_is_no_id_token() -> None:
    fake = FakeProvider()
    fake.id_token = fake.access_token_of(Grant(CLIENT_ID, "alice"))
    assert refused(fake) == "wrong_audience"
    assert refused(fake, implicit=True) == "wrong_audience"


def test_a_refresh_token_is_no_id_token() -> None:
    assert refused(FakeProvider(id_token="opaque-refresh-token")) == "malformed_token"


def test_a_logout_token_is_no_id_token() -> None:
    fake = FakeProvider()
    fake.id_token = fake.logout_token(nonce="n")
    assert refused(fake) == "wrong_token_type"
    # Without its type in the header it is known by its events.
    claims = fake.issuer.token({**fake.claims(Grant(CLIENT_ID, "alice", "n")), "events": {}})
    fake.id_token = claims
    assert refused(fake) == "wrong_token_type"


@pytest.mark.parametrize("typ", ["Bearer", "Refresh", "Offline", "Logout", None])
def test_keycloak_says_itself_which_of_its_tokens_is_an_id_token(typ: str | None) -> None:
    """Its access tokens of a client with an audience mapper have the client in `aud`."""
    endpoint = f"{AUTHORITY}/protocol/openid-connect/token"
    fake = FakeProvider(metadata_changes={"token_endpoint": endpoint})
    asyncio.run(sign_in(fake_with(fake, "ID")))
    assert refused(fake_with(fake, typ)) == "wrong_token_type"


def fake_with(fake: FakeProvider, typ: str | None) -> FakeProvider:
    fake.claims_changes = {"typ": typ}
    return fake


def test_a_token_that_is_too_large_is_not_read() -> None:
    with pytest.raises(ClientError, match="gave no usable id_token"):
        asyncio.run(sign_in(FakeProvider(id_token="x" * (16 * 1024 + 1))))


# Afterwards


@pytest.mark.parametrize("sub", ["bob", "", "alice\x00", "ALICE"])
def test_a_refresh_does_not_change_the_person(sub: str) -> None:
    async def story() -> None:
        fake = FakeProvider()
        tokens = await sign_in(fake)
        fake.claims_changes["sub"] = sub
        await (await opened(fake)).refresh(tokens.refresh_token, "alice")

    with pytest.raises(TokenRefused) as caught:
        asyncio.run(story())
    assert caught.value.reason == ("wrong_subject" if sub else "missing_claim")


def test_a_session_without_a_subject_is_not_refreshed() -> None:
    async def story() -> None:
        fake = FakeProvider()
        tokens = await sign_in(fake)
        await (await opened(fake)).refresh(tokens.refresh_token, "")

    with pytest.raises(TokenRefused):
        asyncio.run(story())


def test_a_refresh_token_counts_once() -> None:
    async def story() -> None:
        fake = FakeProvider()
        tokens = await sign_in(fake)
        provider = await opened(fake)
        await provider.refresh(tokens.refresh_token, "alice")
        await provider.refresh(tokens.refresh_token, "alice")

    with pytest.raises(ProviderRefused) as caught:
        asyncio.run(story())
    assert caught.value.error == "invalid_grant"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonce": "n"}, "wrong_token_type"),
        ({"events": None}, "wrong_token_type"),
        ({"events": {}}, "wrong_token_type"),
        ({"events": {"https://example.com/other": {}}}, "wrong_token_type"),
        ({"events": "http://schemas.openid.net/event/backchannel-logout"}, "wrong_token_type"),
        ({"aud": "another-client"}, "wrong_audience"),
        ({"iss": OTHER}, "untrusted_issuer"),
        ({"exp": 1_699_999_000}, "expired"),
        ({"exp": None}, "missing_claim"),
        ({"iat": 1_700_009_000}, "not_yet_valid"),
        ({"jti": None}, "missing_claim"),
        ({"sid": None, "sub": None}, "missing_claim"),
        ({"sid": 7}, "malformed_token"),
    ],
    ids=str,
)
def test_a_wrong_logout_token_ends_no_session(changes: dict[str, object], reason: str) -> None:
    async def story() -> None:
        fake = FakeProvider()
        await (await opened(fake)).verify_logout_token(fake.logout_token(**changes))

    with pytest.raises(TokenRefused) as caught:
        asyncio.run(story())
    assert caught.value.reason == reason


def test_an_id_token_ends_no_session() -> None:
    async def story() -> None:
        fake = FakeProvider()
        tokens = await sign_in(fake)
        await (await opened(fake)).verify_logout_token(tokens.id_token)

    with pytest.raises(TokenRefused) as caught:
        asyncio.run(story())
    assert caught.value.reason == "wrong_token_type"


def test_an_access_token_that_another_client_got_is_not_ours() -> None:
    async def story() -> None:
        fake = FakeProvider(secrets={"robot": "s"})
        stolen = fake.access_token_of(Grant("another-robot", "service-account-another-robot"))
        fake.endpoints["token"] = answering(json={"access_token": stolen})
        await (await opened(fake, Client("robot", "", "s"))).client_credentials()

    with pytest.raises(TokenRefused) as caught:
        asyncio.run(story())
    assert caught.value.reason == "wrong_party"


# The provider's metadata


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": OTHER},
        {"issuer": AUTHORITY.upper()},
        {"issuer": AUTHORITY + "?x"},
        {"issuer": None},
        {"issuer": [AUTHORITY]},
        {"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
        {"token_endpoint": "http://sso.example.com/token"},
        {"token_endpoint": "http://127.0.0.1/token"},
        {"token_endpoint": "http://localhost:8080/token"},
        {"token_endpoint": "https://user:pass@sso.example.com/token"},
        {"token_endpoint": "https://sso.example.com/token#x"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "javascript:alert(1)"},
        {"token_endpoint": "https:///token"},
        {"token_endpoint": "https://sso.example.com:99999/token"},
        {"token_endpoint": "https://sso.example.com/" + "x" * 3000},
        {"token_endpoint": None},
        {"token_endpoint": 7},
        {"authorization_endpoint": "http://sso.example.com/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": None},
        {"jwks_uri": "http://sso.example.com/jwks"},
        {"jwks_uri": None},
        {"device_authorization_endpoint": "http://sso.example.com/device"},
        {"revocation_endpoint": "http://sso.example.com/revoke"},
        {"end_session_endpoint": "javascript:alert(1)"},
    ],
    ids=str,
)
def test_metadata_that_leads_astray_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ClientError):
        asyncio.run(opened(FakeProvider(metadata_changes=changes)))


@pytest.mark.parametrize(
    "authority",
    [
        *("http://sso.example.com", "ftp://sso.example.com", "sso.example.com", "", "https://"),
        *("http://127.0.0.1.example.com", "http://localhost.example.com"),
    ],
)
def test_an_authority_in_clear_is_not_asked(authority: str) -> None:
    fake = FakeProvider(iss=authority)
    with pytest.raises(ClientError):
        asyncio.run(opened(fake))
    assert not fake.asked


@pytest.mark.parametrize(
    "answer",
    [
        answering(302, headers={"Location": f"{OTHER}/.well-known/openid-configuration"}),
        answering(404),
        answering(500),
        answering(200, content=b"<html>"),
        answering(200, content=b'{"issuer":"x","issuer":"y"}'),
        answering(200, content=b"[1]"),
        answering(200, content=b'{"a":' * 5000),
        answering(200, content=b" " * 300_000),
        answering(200, content=b"\xff\xfe{}"),
    ],
    ids=[
        *("redirect", "not found", "failure", "html", "a member twice", "a list", "deep", "long"),
        "no text",
    ],
)
def test_an_answer_that_is_no_metadata_is_refused(answer: Any) -> None:
    fake = FakeProvider(endpoints={"openid-configuration": answer})
    with pytest.raises(ClientError):
        asyncio.run(opened(fake))
    assert [each.url.host for each in fake.asked] == ["sso.example.com"]


# The token endpoint


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_of_the_token_endpoint_is_followed(status: int) -> None:
    fake = FakeProvider()
    fake.endpoints["token"] = answering(status, headers={"Location": f"{OTHER}/token"})
    with pytest.raises(ClientError, match="a redirect, which is not followed with a secret"):
        asyncio.run(sign_in(fake))
    assert {each.url.host for each in fake.asked} == {"sso.example.com"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b"{}",
        b'{"access_token": 7}',
        b'{"access_token": ""}',
        b'{"access_token": null, "id_token": "x"}',
        b'{"access_token": "a\\r\\nb"}',
        b'{"access_token": "\\u00e9"}',
        b'{"access_token": "a", "access_token": "b"}',
        b'{"access_token": "a", "expires_in": NaN}',
        b'{"access_token": "a", "id_token": ["x"]}',
        b'{"access_token": "a", "refresh_token": {}}',
        b'{"access_token": "a", "error": {}}',
        b'{"error": 7}',
        b'{"error": "", "error_description": 7}',
        b'{"error": "x", "error_description": {"a": 1}}',
        b'{"access_token": "' + b"x" * 20_000 + b'"}',
        b'{"expires_in": ' + b"9" * 5000 + b"}",
        b'{"a":' * 200 + b"1" + b"}" * 200,
    ],
    ids=lambda content: repr(content[:50]),
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_answer_that_is_no_token_is_a_sentence(content: bytes, status: int) -> None:
    fake = FakeProvider()
    fake.endpoints["token"] = answering(status, content=content)
    with pytest.raises(ClientError) as caught:
        asyncio.run(sign_in(fake))
    assert len(str(caught.value)) < 1000


def test_a_good_token_in_an_answer_that_failed_is_not_taken() -> None:
    async def story(status: int) -> None:
        fake = FakeProvider()
        good = await sign_in(fake)
        body = {"access_token": good.access_token, "id_token": good.id_token}
        fake.endpoints["token"] = answering(status, json=body)
        await sign_in(fake)

    for status in (201, 202, 400, 401):
        with pytest.raises(ClientError, match="not as an OAuth server does"):
            asyncio.run(story(status))


def test_an_answer_is_not_read_beyond_its_limit() -> None:
    fake = FakeProvider()
    fake.endpoints["token"] = answering(content=b" " * (256 * 1024 + 1))
    with pytest.raises(ClientError, match="more than 256 KiB"):
        asyncio.run(sign_in(fake))


class Hostile:
    """A provider on a real port whose token endpoint answers as *misbehave* says."""

    def __init__(self, misbehave: Callable[[Any], AsyncIterator[bytes]]) -> None:
        self.misbehave = misbehave
        self.fake = FakeProvider()

    async def reply(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path.endswith("/token"):
            async for piece in self.misbehave(writer):
                writer.write(piece)
                await writer.drain()
            return
        given = await self.fake.answer(httpx2.Request("GET", self.fake.iss + path))
        writer.write(http_answer(given.content))


async def endless(_writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield b"x" * 65536


async def large(_writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    yield http_answer(b" " * (256 * 1024 + 1))


async def slow(_writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    while True:
        await asyncio.sleep(0.1)
        yield b" "


async def silent(_writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    await asyncio.sleep(60)
    yield b""


async def endless_head(_writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-More: " + b"x" * 1000 + b"\r\n"


async def interim(_writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    while True:
        yield b"HTTP/1.1 103 Early Hints\r\n\r\n"
        await asyncio.sleep(0)


async def packed(_writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    yield http_answer(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip")


async def hung_up(writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    writer.transport.abort()


@pytest.mark.parametrize(
    "misbehave",
    [endless, large, slow, silent, endless_head, interim, packed, hung_up],
    ids=lambda each: each.__name__,
)
def test_no_answer_holds_a_sign_in_for_long(
    misbehave: Callable[[Any], AsyncIterator[bytes]],
) -> None:
    hostile = Hostile(misbehave)

    async def story() -> None:
        async with raw_server(hostile.reply) as (url, _), open_async_client() as http:
            hostile.fake.iss = url
            provider = await OpenIdProvider.discover(
                url, PUBLIC, http, hostile.fake.clock, answer_seconds=1.0
            )
            pending = Pending.fresh(REDIRECT_URI)
            answer = hostile.fake.sign_in(provider.authorization_url(pending))
            with pytest.raises(ClientError):
                async with asyncio.timeout(5):
                    await provider.redeem(provider.code_of(answer, pending), pending)

    asyncio.run(story())


# The connection


def test_secrets_go_to_no_server_with_an_unknown_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    asked: list[str] = []

    async def reply(path: str, _writer: asyncio.StreamWriter) -> None:
        asked.append(path)

    with in_thread(lambda: raw_server(reply, tls=authority.server())) as (url, _):

        async def story() -> None:
            async with open_async_client() as http:
                await OpenIdProvider.discover(url, PUBLIC, http, lambda: 0.0)

        with pytest.raises(ClientError, match="SSL_CERT_FILE"):
            asyncio.run(story())
    assert not asked


def test_a_private_authority_is_trusted_where_the_environment_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    fake = FakeProvider()

    async def reply(path: str, writer: asyncio.StreamWriter) -> None:
        given = await fake.answer(httpx2.Request("GET", fake.iss + path))
        writer.write(http_answer(given.content))

    with in_thread(lambda: raw_server(reply, tls=authority.server())) as (url, _):
        fake.iss = url
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))

        async def story() -> str:
            async with open_async_client() as http:
                return (await OpenIdProvider.discover(url, PUBLIC, http, lambda: 0.0)).issuer

        assert asyncio.run(story()) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_provider_on_this_machine_is_not_asked_through_a_proxy(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a proxy, codes and secrets would leave the machine in clear."""
    fake = FakeProvider()

    async def reply(path: str, writer: asyncio.StreamWriter) -> None:
        given = await fake.answer(httpx2.Request("GET", fake.iss + path))
        writer.write(http_answer(given.content))

    async def proxy(_path: str, _writer: asyncio.StreamWriter) -> None:
        raise AssertionError("the proxy was asked")

    async def story() -> None:
        async with raw_server(reply) as (url, _), raw_server(proxy) as (through, asked):
            monkeypatch.setenv("HTTP_PROXY", through)
            monkeypatch.delenv("NO_PROXY", raising=False)
            fake.iss = url.replace("127.0.0.1", host)
            async with open_async_client() as http:
                await OpenIdProvider.discover(fake.iss, PUBLIC, http, lambda: 0.0)
            assert asked == []

    asyncio.run(story())


def test_a_ca_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    with pytest.raises(ClientError, match=r"^SSL_CERT_FILE: .*absent.pem: No such file"):
        open_async_client()


def test_no_cookie_of_one_person_is_sent_with_the_request_of_another() -> None:
    fake = FakeProvider()
    cookie = {"Set-Cookie": "session=alice; Path=/"}

    async def setting(request: httpx2.Request) -> httpx2.Response:
        given = await fake._token(request)
        return httpx2.Response(200, headers=cookie, content=given.content)

    async def story() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(fake.answer)) as http:
            provider = await OpenIdProvider.discover(fake.iss, PUBLIC, http, fake.clock)
            fake.endpoints["token"] = setting
            for _ in range(2):
                pending = Pending.fresh(REDIRECT_URI)
                answer = fake.sign_in(provider.authorization_url(pending))
                await provider.redeem(provider.code_of(answer, pending), pending)

    asyncio.run(story())
    assert all("cookie" not in each.headers for each in fake.asked)


def test_a_secret_is_sent_to_the_token_endpoint_alone() -> None:
    fake = FakeProvider(secrets={CLIENT_ID: "s3cret"}, auth_methods=["client_secret_post"])
    asyncio.run(sign_in(fake, Client(CLIENT_ID, "", "s3cret")))
    holders = [each for each in fake.asked if b"s3cret" in each.content]
    assert [each.url.path for each in holders] == ["/realms/octo/token"]
    assert all("s3cret" not in str(each.url) for each in fake.asked)
    assert form_of(holders[0])["client_secret"] == "s3cret"


# Another device


@pytest.mark.parametrize(
    "changes",
    [
        {"user_code": "A\x1b[2J"},
        {"user_code": "A\nB"},
        {"user_code": ""},
        {"user_code": "x" * 65},
        {"user_code": None},
        {"device_code": ""},
        {"device_code": 7},
        {"verification_uri": "http://sso.example.com/code"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://sso.example.com/\x1b[2J"},
        {"verification_uri": "https://sso.example.com/" + "x" * 3000},
        {"verification_uri": None},
        {"verification_uri_complete": "javascript:alert(1)"},
    ],
    ids=str,
)
def test_what_a_terminal_could_obey_is_not_shown(changes: dict[str, object]) -> None:
    body = {
        "device_code": "d",
        "user_code": "WDJB-MJHT",
        "verification_uri": f"{AUTHORITY}/code",
        **changes,
    }

    async def story() -> None:
        fake = FakeProvider(endpoints={"device": answering(json=body)})
        await (await opened(fake)).begin_device()

    with pytest.raises(ClientError):
        asyncio.run(story())


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"interval": 0, "expires_in": 0}, (5, 300)),
        ({"interval": -1, "expires_in": -1}, (5, 300)),
        ({"interval": 0.001, "expires_in": 1e300}, (1, 3600)),
        ({"interval": 10**30, "expires_in": 10**30}, (60, 3600)),
        ({"interval": "5", "expires_in": True}, (5, 300)),
        ({}, (5, 300)),
    ],
    ids=str,
)
def test_the_times_of_a_device_sign_in_are_bounded(
    given: dict[str, object], seconds: tuple[float, float]
) -> None:
    body = {"device_code": "d", "user_code": "C", "verification_uri": f"{AUTHORITY}/c", **given}

    async def story() -> None:
        fake = FakeProvider(endpoints={"device": answering(json=body)})
        begun = await (await opened(fake)).begin_device()
        assert (begun.interval_seconds, begun.expires_in_seconds) == seconds

    asyncio.run(story())


def test_a_device_code_is_of_no_use_without_its_verifier() -> None:
    async def story() -> None:
        fake = FakeProvider()
        provider = await opened(fake)
        await provider.begin_device()
        (code,) = fake.devices
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        form = {"grant_type": grant, "device_code": code, "client_id": CLIENT_ID}
        async with fake.http() as http:
            stolen = await http.post(f"{AUTHORITY}/token", data={**form, "code_verifier": "guess"})
        assert stolen.json()["error"] == "invalid_grant"

    asyncio.run(story())
