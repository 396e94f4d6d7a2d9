"""The guard around every page: headers, hosts and errors; and the checks of our forms."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from federation.dashboard.page import changes
from federation.dashboard.session import Session
from federation.web.forms import Form
from tests.harness.broker import logged
from tests.harness.dashboard import PUBLIC_URL, SAME_ORIGIN, InProcess, tell

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self';"
    " form-action 'self' https://idp.example.com; frame-ancestors 'none'; base-uri 'none';"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)


async def _echo(_request: Request, session: Session, form: Form) -> Response:
    return PlainTextResponse(f"{session.person} {sorted(form.items())}")


async def _broken(_request: Request) -> Response:
    raise RuntimeError("a secret of the code")


def with_routes(dashboard: InProcess) -> None:
    """Add a form and a page that fails."""
    dashboard.app.router.routes += [
        Route("/test/form", changes(_echo, repeatable={"tag"}), methods=["POST"]),
        Route("/test/broken", _broken),
    ]


@pytest.mark.parametrize(
    "path", ["/", "/auth/login", "/auth/callback", "/auth/refused", "/auth/signed-out", "/nowhere",
             "/functions", "/style.css", "/livez", "/readyz", "/test/broken"],
)  # fmt: skip
def test_every_answer_has_the_headers(tmp_path: Path, path: str) -> None:
    async def story(dashboard: InProcess) -> None:
        with_routes(dashboard)
        headers = (await dashboard.browser().get(path)).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert "camera=()" in headers["permissions-policy"]
        assert headers["strict-transport-security"].startswith("max-age=")
        assert headers["x-request-id"]
        if path != "/style.css":
            assert headers["cache-control"] == "no-store"
        for name in ("content-security-policy", "cache-control", "x-frame-options"):
            assert len(headers.get_list(name)) == 1

    tell(tmp_path, story)


def test_a_dashboard_without_tls_asks_for_none(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        answer = await dashboard.browser().get("/")
        assert answer.status_code == 200
        assert "strict-transport-security" not in answer.headers

    tell(tmp_path, story, public_url="http://dashboard.localhost:8090")


def test_a_provider_that_ends_no_sessions_stands_in_no_policy(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.provider.ends_sessions = False
        policy = (await dashboard.browser().get("/")).headers["content-security-policy"]
        assert "form-action 'self';" in policy

    tell(tmp_path, story)


def test_an_unexpected_error_says_its_id_alone(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        with_routes(dashboard)
        answer = await dashboard.browser().get("/test/broken")
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] in answer.text
        assert "secret" not in answer.text

    with logged() as log:
        tell(tmp_path, story)
    assert "a secret of the code" in log.getvalue()


def test_other_methods_are_not_answered(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            assert (await browser.ask(method, "/")).status_code == 405
        assert (await browser.get("/auth/logout")).status_code == 405
        assert (await browser.get("/auth/backchannel-logout")).status_code == 405

    tell(tmp_path, story)


def test_a_form_of_ours_is_taken(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        with_routes(dashboard)
        browser = await dashboard.signed_in()
        csrf = await browser.csrf()
        answer = await browser.post("/test/form", {"csrf": csrf, "name": "x"})
        assert answer.text == "Alice [('name', ['x'])]", "the token is not a field of the form"
        old_browser = {"Origin": PUBLIC_URL}
        answer = await browser.post("/test/form", {"csrf": csrf}, old_browser)
        assert answer.status_code == 200

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("csrf={csrf}&name=1&name=2", 400),
        ("csrf={csrf}&tag=1&tag=2", 200),
        ("csrf={csrf}&csrf={csrf}", 400),
        ("csrf={csrf}&broken=%G1", 400),
        ("csrf={csrf}&text=" + "x" * 70_000, 400),
        ("csrf={csrf}" + "&a=1" * 300, 400),
    ],
    ids=["twice", "repeatable", "two tokens", "escape", "long", "many"],
)
def test_forms_are_bounded_and_read_strictly(tmp_path: Path, body: str, status: int) -> None:
    async def story(dashboard: InProcess) -> None:
        with_routes(dashboard)
        browser = await dashboard.signed_in()
        content = body.replace("{csrf}", await browser.csrf())
        headers = {**SAME_ORIGIN, "Content-Type": "application/x-www-form-urlencoded"}
        answer = await browser.ask("POST", "/test/form", content=content, headers=headers)
        assert answer.status_code == status

    tell(tmp_path, story)


@pytest.mark.parametrize(
    "media_type", ["application/json", "multipart/form-data", "text/plain", ""]
)
def test_only_a_form_is_read(tmp_path: Path, media_type: str) -> None:
    async def story(dashboard: InProcess) -> None:
        with_routes(dashboard)
        browser = await dashboard.signed_in()
        csrf = await browser.csrf()
        headers = {**SAME_ORIGIN, "Content-Type": media_type}
        answer = await browser.ask("POST", "/test/form", content=f"csrf={csrf}", headers=headers)
        assert answer.status_code == 400

    tell(tmp_path, story)


def test_a_form_after_the_session_says_that_nothing_was_changed(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        with_routes(dashboard)
        browser = await dashboard.signed_in()
        csrf = await browser.csrf()
        dashboard.clock.advance(13 * 3600)
        answer = await browser.post("/test/form", {"csrf": csrf})
        assert answer.status_code == 401
        assert "nothing was changed" in answer.text

    tell(tmp_path, story)


def test_readiness_says_how_well_it_is_and_no_more(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        assert (await browser.get("/readyz")).json() == {"status": "ok"}
        dashboard.broker.answers["GET", "/livez"] = lambda _request: httpx2.Response(502)
        dashboard.app.state.health._known = (float("-inf"), "")
        answer = await browser.get("/readyz")
        assert answer.status_code == 200, "another replica could do no better"
        assert answer.json() == {"status": "degraded"}

    tell(tmp_path, story)
