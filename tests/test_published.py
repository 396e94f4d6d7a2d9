"""The sign-in settings that a gateway publishes: what is taken from it, and what is told."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from federation.client import ClientError
from federation.client.http import Sender
from federation.sign_on.published import published_settings, require_no_mix_up
from federation.sign_on.sessions import Sessions, SignInSettings

GATEWAY = "https://gateway.example.com"
GOOD: dict[str, object] = {
    "resource": GATEWAY,
    "authorization_servers": ["https://sso.example.com/realms/octo"],
    "scopes_supported": ["openid", "profile"],
    "bearer_methods_supported": ["header"],
    "federation_client_id": "openfaas",
    "federation_scopes": "openid groups",
}


def published(answer: httpx2.Response, gateway: str = GATEWAY) -> SignInSettings:
    asked: list[str] = []

    def answered(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return answer

    client = httpx2.Client(transport=httpx2.MockTransport(answered))
    with Sender(client, pause=lambda _seconds: None) as sender:
        settings = published_settings(gateway, sender)
    assert asked == [f"{gateway}/.well-known/oauth-protected-resource"]
    return settings


def told(**changes: object) -> httpx2.Response:
    document = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return httpx2.Response(200, json=document)


def test_provider_client_and_scopes_are_taken() -> None:
    assert published(told()) == SignInSettings(
        "https://sso.example.com/realms/octo", "openfaas", "openid groups", published=True
    )


def test_scopes_have_a_default() -> None:
    assert published(told(federation_scopes=None)).scopes == "openid profile email"


@pytest.mark.parametrize("resource", [GATEWAY, f"{GATEWAY}/", "https://Gateway.example.com"])
def test_a_gateway_may_write_its_own_url_in_each_form(resource: str) -> None:
    assert published(told(resource=resource)).client_id == "openfaas"


def test_on_this_machine_both_may_be_without_tls() -> None:
    gateway = "http://127.0.0.1:8080"
    here = told(resource=gateway, authorization_servers=["http://127.0.0.1:8081"])
    assert published(here, gateway).authority == "http://127.0.0.1:8081"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(httpx2.Response(404), id="not there"),
        pytest.param(httpx2.Response(401), id="401"),
        pytest.param(httpx2.Response(302, headers={"Location": "https://x"}), id="a redirect"),
    ],
)
def test_a_gateway_that_publishes_nothing_is_told_with_what_to_give(
    answer: httpx2.Response,
) -> None:
    with pytest.raises(ClientError, match="--authority and --client-id"):
        published(answer)


def others(sessions: Sessions, settings: SignInSettings) -> Sessions:
    sessions.remember("https://first.example.com", settings)
    return sessions


@pytest.mark.parametrize(
    ("known", "stops"),
    [
        pytest.param(SignInSettings("https://sso.example.com/realms/octo", "openfaas"), True,
                     id="the same client of the same provider"),
        pytest.param(SignInSettings("https://sso.example.com/realms/octo/", "openfaas"), True,
                     id="with a slash"),
        pytest.param(SignInSettings("https://sso.example.com/realms/octo", "another"), False,
                     id="another client"),
        pytest.param(SignInSettings("https://sso.example.org", "openfaas"), False,
                     id="another provider"),
    ],
)  # fmt: skip
def test_a_client_that_another_gateway_has_is_not_taken_from_a_gateway(
    tmp_path: Path, known: SignInSettings, stops: bool
) -> None:
    sessions = others(Sessions(tmp_path / "federation"), known)
    if not stops:
        require_no_mix_up(published(told()), GATEWAY, sessions)
        return
    with pytest.raises(ClientError) as caught:
        require_no_mix_up(published(told()), GATEWAY, sessions)
    assert "https://first.example.com" in caught.value.problem
    # What to write if both are one's own.
    assert f"--gateway {GATEWAY} --authority https://sso.example.com" in caught.value.advice
    assert "--client-id openfaas" in caught.value.advice


def test_settings_that_a_person_gave_may_be_those_of_another_gateway(tmp_path: Path) -> None:
    settings = SignInSettings("https://sso.example.com/realms/octo", "openfaas")
    require_no_mix_up(settings, GATEWAY, others(Sessions(tmp_path / "federation"), settings))


def test_the_same_gateway_may_publish_the_same_again(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "federation")
    sessions.remember(GATEWAY, published(told()))
    require_no_mix_up(published(told()), GATEWAY, sessions)


@pytest.mark.parametrize("known", ["", "/", "/.well-known/openid-configuration"])
@pytest.mark.parametrize("told", ["", "/", "/.well-known/openid-configuration"])
def test_another_spelling_of_the_provider_does_not_hide_that_it_is_the_same(
    tmp_path: Path, known: str, told: str
) -> None:
    sessions = Sessions(tmp_path)
    provider = "https://sso.example.com/realms/octo"
    sessions.remember("https://mine.example.com", SignInSettings(provider + known, "openfaas"))
    settings = SignInSettings(provider + told, "openfaas", published=True)
    with pytest.raises(ClientError, match=r"https://mine\.example\.com"):
        require_no_mix_up(settings, GATEWAY, sessions)
