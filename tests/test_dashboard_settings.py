"""The settings of the dashboard: all problems at once, and what each one may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from federation.config.dashboard import (
    DashboardSettings,
    dashboard_reading,
    read_dashboard_settings,
)
from federation.errors import SettingsRefused

GOOD = {
    "public_url": "https://dashboard.example.com",
    "gateway": "http://federation.openfaas:8080",
    "issuer": "https://sso.example.com/realms/octo",
    "client_id": "openfaas-dashboard",
}


def problems(**flags: str) -> list[str]:
    with pytest.raises(SettingsRefused) as refused:
        read_dashboard_settings(flags, {})
    return list(refused.value.problems)


def settings(**flags: str | Sequence[str]) -> DashboardSettings:
    return read_dashboard_settings({**GOOD, **flags}, {})


def test_all_problems_are_told_at_once() -> None:
    told = problems(port="99999", session_lifetime="soon", shared_state="http://x")
    assert len(told) == 8
    for name in ("public-url", "gateway", "issuer", "client-id", "port", "session-lifetime",
                 "shared-state", "session-key"):  # fmt: skip
        assert any(name in problem for problem in told), name
    assert any("FEDERATION_DASHBOARD_PUBLIC_URL" in problem for problem in told)


def test_flags_win_over_variables_and_service_links_are_passed_over() -> None:
    environ = {f"FEDERATION_DASHBOARD_{name.upper()}": value for name, value in GOOD.items()}
    environ |= {
        "FEDERATION_DASHBOARD_PORT": "tcp://10.0.0.1:8090",
        "FEDERATION_DASHBOARD_SCOPES": "openid groups",
        "FEDERATION_PORT": "9999",
    }
    found = read_dashboard_settings({"client_id": "other"}, environ)
    assert (found.port, found.scopes, found.client_id) == (8090, "openid groups", "other")


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://Dashboard.Example.COM", "https://dashboard.example.com"),
        ("https://dashboard.example.com:443", "https://dashboard.example.com"),
        ("https://dashboard.example.com:8443", "https://dashboard.example.com:8443"),
        ("http://localhost:8090", "http://localhost:8090"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:8090", "http://[::1]:8090"),
        ("http://dashboard.localhost:8090", "http://dashboard.localhost:8090"),
    ],
)
def test_the_public_url_is_an_origin_as_browsers_write_it(given: str, origin: str) -> None:
    assert settings(public_url=given).public_url == origin


@pytest.mark.parametrize(
    "given",
    ["http://dashboard.example.com", "https://dashboard.example.com/", "https://d.example.com/x",
     "https://user@d.example.com", "https://d.example.com:99999", "dashboard.example.com",
     "https://", "http://localhost.example.com", "http://xlocalhost", "https://d.example.com?x",
     "https://d.example.com#x", "https://d .example.com"],
)  # fmt: skip
def test_another_public_url_is_refused(given: str) -> None:
    (problem,) = problems(**{**GOOD, "public_url": given})
    assert "public-url" in problem


@pytest.mark.parametrize(
    "given",
    ["http://sso.example.com", "https://sso.example.com?x=1", "https://sso.example.com#x", "sso",
     "ftp://sso.example.com", "https://sso example.com", "https://alice:secret@sso.example.com",
     "https://sso.example.com:99999", "https://sso.example.com\\.mallory.example.com"],
)  # fmt: skip
def test_another_issuer_is_refused(given: str) -> None:
    (problem,) = problems(**{**GOOD, "issuer": given})
    assert "issuer" in problem


@pytest.mark.parametrize("given", ["profile email", "openid  email", 'openid "x"', "openid\tx"])
def test_other_scopes_are_refused(given: str) -> None:
    (problem,) = problems(**{**GOOD, "scopes": given})
    assert "scopes" in problem


def test_the_brokers_public_url_is_the_gateway_unless_it_is_another() -> None:
    assert settings().broker_url == "http://federation.openfaas:8080"
    assert settings(gateway_url="https://gw.example.com").broker_url == "https://gw.example.com"


def test_no_message_quotes_a_secret(tmp_path: Path) -> None:
    told = problems(**{**GOOD, "shared_state": "redis://:pass word@redis:6379"})
    assert "pass" not in " ".join(told)
    found = settings(
        shared_state="redis://:password@redis:6379", session_key=(str(_key(tmp_path)),)
    )
    assert "password" not in repr(found)


def _key(folder: Path) -> Path:
    path = folder / "key"
    path.write_text("a key of at least 32 bytes, for tests alone")
    path.chmod(0o600)
    return path


def test_each_setting_has_a_row_in_the_docs() -> None:
    page = (Path(__file__).parents[1] / "docs" / "dashboard.md").read_text("utf-8")
    for name in DashboardSettings.model_fields:
        assert f"`{name.replace('_', '-')}`" in page, name
    assert dashboard_reading().variable("public_url") in page
