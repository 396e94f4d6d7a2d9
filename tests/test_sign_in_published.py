"""The broker publishes the provider where people sign in (RFC 9728), if the settings say so."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from federation.config import read_settings
from federation.documents.catalog import Catalog
from federation.errors import SettingsRefused
from tests.harness.api import CAN_I, DOCUMENTS, WHOAMI, call
from tests.harness.broker import URL, InProcess, logged
from tests.harness.builders import GENERIC
from tests.harness.gateway import Front

PATH = "/.well-known/oauth-protected-resource"
CHALLENGE = f'Bearer resource_metadata="{URL}{PATH}"'
SAID = "nobody who signs in gets a token"
SIGN_IN: dict[str, Any] = {"sign_in_issuer": GENERIC, "sign_in_client_id": "faas-cli"}


def with_clients(catalog: Catalog, *clients: str) -> Catalog:
    """The same catalog; people of the identity provider sign in by *clients*."""
    idp = replace(catalog.issuers[GENERIC], clients=clients)
    return replace(catalog, issuers={**catalog.issuers, GENERIC: idp})


# -- the metadata


def test_it_is_what_a_client_needs_to_sign_in() -> None:
    answer = InProcess(**SIGN_IN).ask("GET", PATH)
    assert answer.json() == {
        "resource": URL,
        "authorization_servers": [GENERIC],
        "scopes_supported": ["openid", "profile", "email"],
        "bearer_methods_supported": ["header"],
        "federation_client_id": "faas-cli",
        "federation_scopes": "openid profile email",
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, max-age=300"


def test_scopes_are_published_as_they_are_set() -> None:
    told = InProcess(**SIGN_IN, sign_in_scopes="openid groups").ask("GET", PATH).json()
    assert told["scopes_supported"] == ["openid", "groups"]
    assert told["federation_scopes"] == "openid groups"


def test_the_host_header_cannot_make_it_another_resource() -> None:
    answer = InProcess(**SIGN_IN).ask("GET", PATH, headers={"host": "evil.example.com"})
    assert answer.json()["resource"] == URL
    assert "evil" not in answer.text


def test_it_is_read_only() -> None:
    broker = InProcess(**SIGN_IN)
    assert broker.ask("POST", PATH).status_code == 405
    assert (broker.ask("HEAD", PATH).status_code, broker.ask("HEAD", PATH).content) == (200, b"")


@pytest.mark.parametrize("settings", [{}, SIGN_IN], ids=["not published", "published"])
def test_it_is_the_brokers_own_path_also_in_front_of_a_gateway(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    front = Front(tmp_path, **settings)
    assert front.ask("GET", PATH).status_code == (200 if settings else 404)
    assert front.received == []


def test_without_the_settings_it_is_404() -> None:
    assert InProcess().ask("GET", PATH).status_code == 404


# -- the challenge


@pytest.mark.parametrize("path", [WHOAMI, CAN_I, DOCUMENTS])
@pytest.mark.parametrize("token", [None, "bad"])
def test_a_401_says_where_the_metadata_is(tmp_path: Path, path: str, token: str | None) -> None:
    challenge = call(Front(tmp_path, **SIGN_IN), path, token).headers["www-authenticate"]
    assert challenge == CHALLENGE
    assert call(Front(tmp_path), path, token).headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("token", [None, "bad"])
def test_a_401_of_a_function_keeps_the_challenge_that_faas_cli_looks_for(
    tmp_path: Path, token: str | None
) -> None:
    front = Front(tmp_path, functions="authorize", **SIGN_IN)
    answer = front.call("GET", "/system/functions", token)
    assert answer.headers["www-authenticate"] == CHALLENGE
    answer = front.call("GET", "/function/figlet.dev", token)
    assert answer.headers["www-authenticate"] == 'Bearer realm="IAM function invoke"'


# -- documents that fit


def degraded(broker: InProcess) -> list[str]:
    """What readiness says of people who sign in."""
    answer: httpx2.Response = broker.ask("GET", "http://localhost:8080/readyz")
    assert answer.status_code == 200
    return [each for each in answer.json()["degraded"] if each.startswith("sign-in: ")]


def test_readiness_says_if_nobody_who_signs_in_gets_a_token() -> None:
    broker = InProcess(**SIGN_IN)
    broker.source.catalog = with_clients(broker.source.catalog, "faas-cli", "dashboard")
    assert degraded(broker) == []
    broker.source.catalog = with_clients(broker.source.catalog, "dashboard")
    (problem,) = degraded(broker)
    assert "does not name faas-cli of sign-in-client-id in its clients" in problem
    broker.source.catalog = replace(broker.source.catalog, issuers={})
    assert degraded(broker) == [
        f"sign-in: no JwtIssuer in force has the iss {GENERIC} of sign-in-issuer"
    ]
    assert degraded(InProcess()) == []


def test_an_issuer_url_is_compared_exactly() -> None:
    broker = InProcess(sign_in_issuer=f"{GENERIC}/", sign_in_client_id="faas-cli")
    broker.source.catalog = with_clients(broker.source.catalog, "faas-cli")
    assert degraded(broker)


def test_the_log_says_so_once_for_each_set_of_documents() -> None:
    broker = InProcess(**SIGN_IN)
    broker.source.catalog = replace(broker.source.catalog, issuers={})

    async def story(_client: httpx2.AsyncClient) -> None:
        async with broker.app.router.lifespan_context(broker.app):
            async with asyncio.timeout(10):
                while SAID not in log.getvalue():  # noqa: ASYNC110  it is written elsewhere
                    await asyncio.sleep(0.01)

    with logged() as log:
        broker.tell(story)
    events = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert events.count(SAID) == 1


# -- settings


def problems(**flags: str) -> list[str]:
    """What is wrong with the settings *flags*."""
    documents = str(Path(__file__).parents[1] / "examples" / "github-repository.yaml")
    try:
        read_settings({"documents": [documents], **flags}, {})
    except SettingsRefused as refused:
        return list(refused.problems)
    return []


@pytest.mark.parametrize(
    "url",
    ["https://idp.example.com", "https://tenant.auth0.example.com/", "http://127.0.0.1:8080/x",
     "https://idp.example.com/realms/people", "http://localhost:5556/dex"],
)  # fmt: skip
def test_a_provider_is_https_or_on_this_machine(url: str) -> None:
    assert problems(sign_in_issuer=url, sign_in_client_id="faas-cli") == []


@pytest.mark.parametrize(
    ("flags", "saying"),
    [
        ({"sign_in_issuer": "http://idp.example.com"}, "is http"),
        ({"sign_in_issuer": "https://a@idp.example.com"}, "a user, a password"),
        ({"sign_in_issuer": "https://idp.example.com?x"}, "has a query"),
        ({"sign_in_issuer": "idp.example.com"}, "does not begin with https://"),
        ({"sign_in_client_id": " x"}, "sign-in-client-id"),
        ({"sign_in_client_id": "a\nb"}, "sign-in-client-id"),
        ({"sign_in_client_id": "x" * 257}, "sign-in-client-id"),
        ({"sign_in_scopes": "profile email"}, "openid among them"),
        ({"sign_in_scopes": "openid  email"}, "one space between them"),
        ({"sign_in_scopes": 'openid "x"'}, "one space between them"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_at_the_start(
    flags: dict[str, str], saying: str
) -> None:
    good: dict[str, Any] = {"sign_in_issuer": GENERIC, "sign_in_client_id": "faas-cli"}
    (problem,) = problems(**{**good, **flags})
    assert saying in problem


@pytest.mark.parametrize(
    ("flags", "saying"),
    [
        ({"sign_in_issuer": GENERIC}, "need each other"),
        ({"sign_in_client_id": "faas-cli"}, "need each other"),
        ({"sign_in_scopes": "openid"}, "sign-in-scopes is for sign-in-issuer"),
    ],
)
def test_one_setting_without_the_other_is_refused(flags: dict[str, str], saying: str) -> None:
    (problem,) = problems(**flags)
    assert saying in problem
