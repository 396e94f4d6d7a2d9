"""The dashboard's pages: what they ask for, what they show, and what they let a person do."""

from __future__ import annotations

import asyncio
import copy
import gzip
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from federation.dashboard import words
from federation.dashboard.moments import moment
from federation.dashboard.pages import streaming
from tests.harness.dashboard import NOW, Browser, InProcess, running
from tests.harness.dashboard_answers import EVENT, FIGLET, JOB, WHOAMI, PeoplesBroker
from tests.harness.html import Page, read

EVENT_PATH = f"/events/{EVENT['event_id']}"
Story = Callable[[Browser, PeoplesBroker, InProcess], Awaitable[None]]


def tell(folder: Path, story: Story, broker: PeoplesBroker | None = None) -> None:
    """Run *story* with the browser of a person who signed in."""

    async def told() -> None:
        answers = broker or PeoplesBroker()
        async with running(folder, broker=answers) as dashboard:
            browser = await dashboard.signed_in()
            await story(browser, answers, dashboard)
            await browser.aclose()

    asyncio.run(told())


def look(folder: Path, path: str, broker: PeoplesBroker | None = None, status: int = 200) -> Page:
    """The page at *path*."""
    seen: list[Page] = []

    async def story(browser: Browser, *_: Any) -> None:
        answer = await browser.get(path)
        assert answer.status_code == status, answer.text
        seen.append(read(answer.text))

    tell(folder, story, broker)
    return seen[0]


def submit(
    folder: Path,
    path: str,
    form: dict[str, str],
    broker: PeoplesBroker | None = None,
    status: int = 200,
) -> tuple[Page, httpx2.Response]:
    """The answer to a form of ours."""
    seen: list[httpx2.Response] = []

    async def story(browser: Browser, *_: Any) -> None:
        csrf = await browser.csrf()
        answer = await browser.post(path, {"csrf": csrf, **form})
        assert answer.status_code == status, answer.text
        seen.append(answer)

    tell(folder, story, broker)
    return read(seen[0].text), seen[0]


# -- every page

PAGES = {
    "you": "/",
    "functions": "/functions",
    "function": "/functions/dev/figlet",
    "delete": "/functions/dev/figlet/delete",
    "invoke": "/functions/dev/figlet/invoke",
    "logs": "/functions/dev/figlet/logs",
    "follow": "/functions/dev/figlet/logs?follow=1",
    "scaling": "/functions/dev/figlet/scaling",
    "events": "/events",
    "event": EVENT_PATH,
    "documents": "/documents",
    "document": "/documents/Policy/guard",
    "what if": "/what-if",
    "what if of an event": f"/what-if?event={EVENT['event_id']}",
    "what if of a sample": "/what-if?sample=github+main",
    "who can": "/who-can",
    "who can what": "/who-can?action=Function:Create&resource=dev:figlet",
    "what a role gives": "/who-can?role=octo-main",
}
every_page = pytest.mark.parametrize("path", PAGES.values(), ids=PAGES.keys())


@every_page
def test_a_page_has_what_people_and_their_tools_find_their_way_by(
    tmp_path: Path, path: str
) -> None:
    page = look(tmp_path, path)
    assert len(page.all("h1")) == 1
    assert page.text("title").endswith(" · Federation")
    assert page.text("title") != "Welcome · Federation"
    assert page.all("html")[0]["lang"] == "en"
    assert next(a["href"] for a in page.all("a")) == "#main"
    assert page.all("main")[0]["id"] == "main"
    assert {len(page.all(landmark)) for landmark in ("header", "main", "footer")} == {1}
    labelled = {label["for"] for label in page.all("label")}
    for field in [*page.all("input"), *page.all("select"), *page.all("textarea")]:
        assert field.get("type") == "hidden" or field["id"] in labelled
    assert len(page.all("table")) == len(page.all("caption"))
    assert all("scope" in header for header in page.all("th"))
    assert all("datetime" in time for time in page.all("time"))


@every_page
def test_a_page_has_no_script_and_no_style_of_its_own(tmp_path: Path, path: str) -> None:
    page = look(tmp_path, path)
    for tag in ("script", "style", "iframe", "object", "embed", "base", "img", "meta"):
        for element in page.all(tag):
            assert tag == "meta"
            assert "http-equiv" not in element
    assert not [name for element in page.elements for name in element if name.startswith("on")]
    assert not [element for element in page.elements if "style" in element]


@every_page
def test_links_and_forms_lead_to_our_own_pages_only(tmp_path: Path, path: str) -> None:
    page = look(tmp_path, path)
    for link in page.all("a"):
        assert re.fullmatch(r"#main|/(?!/)[!-~]*", link["href"]), link
    for form in page.all("form"):
        assert re.fullmatch(r"/(?!/)[!-~]*", form["action"])
        assert form["method"] in {"get", "post"}


@every_page
def test_every_form_that_posts_carries_the_token_against_forged_requests(
    tmp_path: Path, path: str
) -> None:
    page = look(tmp_path, path)
    posts = [form for form in page.all("form") if form["method"] == "post"]
    tokens = [field for field in page.all("input") if field.get("name") == "csrf"]
    assert len(tokens) == len(posts)
    assert all(len(token["value"]) > 20 for token in tokens)


@every_page
def test_who_did_not_sign_in_is_asked_to(tmp_path: Path, path: str) -> None:
    async def story(_: Browser, broker: PeoplesBroker, dashboard: InProcess) -> None:
        stranger = dashboard.browser()
        answer = await stranger.get(path)
        await stranger.aclose()
        if path == "/":
            assert "Sign in" in answer.text
        else:
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/auth/login?to=/")
        assert broker.requests == []

    tell(tmp_path, story)


@every_page
def test_what_is_asked_of_the_broker_bears_the_persons_token(tmp_path: Path, path: str) -> None:
    async def story(browser: Browser, broker: PeoplesBroker, _: InProcess) -> None:
        await browser.get(path)
        assert broker.requests
        assert {r.headers["authorization"] for r in broker.requests} == {"Bearer access-0"}

    tell(tmp_path, story)


@every_page
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503, 302])
def test_a_broker_that_says_no_is_told_in_a_sentence(
    tmp_path: Path, path: str, status: int
) -> None:
    broker = PeoplesBroker()
    for each in ("whoami", "documents", "explain", "who-can", "audit", "can-i"):
        broker.errors[f"/federation/v1/{each}"] = status, "The broker's own sentence."
    page = look(tmp_path, path, broker, status={401: 401, 403: 403, 404: 404}.get(status, 502))
    assert len(page.all("h1")) == 1
    assert page.text("main").count("The broker's own sentence.") == (status not in {401, 302})
    if status == 401:
        assert any(a["href"].startswith("/auth/login") for a in page.all("a"))


GOOD = json.dumps(dict(WHOAMI)).encode()
"""Where it alone is the answer, the page is shown: the cases below change one thing."""


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json=[]),
        httpx2.Response(200, json={**WHOAMI, "sub": 1}),
        httpx2.Response(200, content=GOOD[:-1] + b', "sub": "again"}'),
        httpx2.Response(200, content=GOOD[:-1] + b', "more": ' + b"[" * 99 + b"]" * 99 + b"}"),
        httpx2.Response(200, content=GOOD + b" " * (32 * 1024 * 1024)),
        httpx2.Response(200, content=gzip.compress(GOOD), headers={"content-encoding": "gzip"}),
        httpx2.Response(302, content=GOOD, headers={"location": "https://gateway.example.com/ok"}),
    ],
    ids=[
        "HTML",
        "a list",
        "another type",
        "a member twice",
        "deep",
        "large",
        "compressed",
        "a redirect",
    ],
)
def test_an_answer_that_is_none_is_told_in_a_sentence(
    tmp_path: Path, answer: httpx2.Response
) -> None:
    class Odd(PeoplesBroker):
        def answer(self, request: httpx2.Request) -> httpx2.Response:
            return answer if request.url.path.endswith("whoami") else super().answer(request)

    page = look(tmp_path, "/", Odd(), status=502)
    assert page.text("h1") == "No answer"


def test_the_answer_that_the_cases_above_change_is_taken(tmp_path: Path) -> None:
    look(tmp_path, "/")


def test_a_broker_that_is_gone_is_told_without_the_token(tmp_path: Path) -> None:
    class Gone(PeoplesBroker):
        def answer(self, request: httpx2.Request) -> httpx2.Response:
            raise httpx2.LocalProtocolError(f"bad header {request.headers['authorization']}")

    page = look(tmp_path, "/functions", Gone(), status=502)
    assert "cannot be reached" in page.text("main")
    assert "access-0" not in page.source


def test_a_decision_about_something_else_is_no_decision(tmp_path: Path) -> None:
    class Swapped(PeoplesBroker):
        def _decisions(self, asked: Any) -> Any:
            answer = dict(super()._decisions(asked))
            return {"access": list(reversed(answer["access"]))}

    look(tmp_path, "/functions/dev/figlet", Swapped(), status=502)


# -- navigation


@pytest.mark.parametrize(
    ("denied", "shown"),
    [
        (set(), ["You", "Functions", "Events", "Documents", "What if", "Who can"]),
        ({"Audit:Read"}, ["You", "Functions", "Documents", "What if", "Who can"]),
        ({"Documents:Read"}, ["You", "Functions", "Events"]),
        ({"Audit:Read", "Documents:Read"}, ["You", "Functions"]),
    ],
)
def test_navigation_shows_what_the_person_may_see(
    tmp_path: Path, denied: set[str], shown: list[str]
) -> None:
    broker = PeoplesBroker()
    broker.denied = denied
    page = look(tmp_path, "/", broker)
    assert list(page.texts("nav", "a")) == shown


def test_the_page_where_one_is_is_marked(tmp_path: Path) -> None:
    page = look(tmp_path, "/documents")
    assert [a["href"] for a in page.all("a") if a.get("aria-current") == "page"] == ["/documents"]


# -- you


def test_the_first_page_says_who_one_is_and_what_one_may_do(tmp_path: Path) -> None:
    said = look(tmp_path, "/").text("main")
    assert "May do everything with functions; list secrets" in said
    assert "in the namespace dev" in said
    assert "in the namespaces like team-*" in said
    assert "May not delete functions" in said
    assert "This statement does not apply to your token." in said
    assert "email is there, and is none of ops@example.com or root@example.com" in said
    assert "developers" in said
    assert "in 15 minutes" in said


def test_policies_that_are_not_in_force_are_told(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.whoami |= {"policies_missing": ["gone"], "statements": []}
    page = look(tmp_path, "/", broker)
    assert "These policies of your token are not in force: gone." in page.text("main")


# -- functions


def test_functions_are_listed_with_their_state_and_last_deployer(tmp_path: Path) -> None:
    page = look(tmp_path, "/functions")
    rows = page.rows()
    assert rows[0][:6] == [
        "figlet",
        "dev",
        "ready",
        "2/2",
        "1024",
        "registry.example.com/figlet:1.4.2",
    ]
    assert rows[0][6] == "1 day ago"
    assert rows[0][7].startswith("fed:repo:octo-org/octo-repo:ref:refs/heads/main")
    assert rows[1][:4] == ["cows", "staging", "stopped", "0/0"]
    assert rows[1][7] == "not in this trail"


def test_the_deployer_is_shown_to_those_who_may_read_the_trail(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.denied = {"Audit:Read"}
    page = look(tmp_path, "/functions", broker)
    assert "Last deployed by" not in page.text("main")
    assert broker.sent("GET", "/federation/v1/audit") == []


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["figlet", "cows"]),
        ("?namespace=staging", ["cows"]),
        ("?name=FIG", ["figlet"]),
        ("?namespace=dev&name=cow", []),
        ("?namespace=other", ["figlet", "cows"]),
    ],
)
def test_functions_are_filtered(tmp_path: Path, query: str, names: list[str]) -> None:
    page = look(tmp_path, f"/functions{query}")
    assert [row[0] for row in page.rows()] == names


def test_hundreds_of_functions_come_page_by_page(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.functions = [{**FIGLET, "name": f"f-{n:03}"} for n in range(250)]
    page = look(tmp_path, "/functions?namespace=dev&name=f&page=3", broker)
    assert [row[0] for row in page.rows()] == [f"f-{n:03}" for n in range(200, 250)]
    assert "Page 3 of 3" in page.text("main")
    assert {"rel": "prev", "href": "/functions?namespace=dev&name=f&page=2"} in page.all("a")


def test_with_many_namespaces_the_first_are_listed_and_it_says_so(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.namespaces = [f"ns-{n:02}" for n in range(30)]
    page = look(tmp_path, "/functions", broker)
    assert len(broker.sent("GET", "/system/functions")) == 20
    assert "Only the first 20 namespaces are shown" in page.text("main")


def test_who_may_not_list_namespaces_sees_those_of_their_policies(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.errors["/system/namespaces"] = 403, "Not allowed: Namespace:List."
    page = look(tmp_path, "/functions", broker)
    assert [row[0] for row in page.rows()] == ["figlet"]


def test_who_sees_no_namespace_is_told_what_to_do(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.namespaces = None
    assert "You see no namespaces." in look(tmp_path, "/functions", broker).text("main")


def test_namespaces_whose_functions_one_may_not_list_are_not_asked_for(tmp_path: Path) -> None:
    """Each refusal would be an event of the trail that nobody meant."""

    class DevAlone(PeoplesBroker):
        def _decisions(self, asked: Any) -> Any:
            answer = dict(super()._decisions(asked))
            for access in answer["access"]:
                access["allowed"] &= not access["resource"].startswith("staging:")
            return answer

    broker = DevAlone()
    page = look(tmp_path, "/functions", broker)
    assert "You may not list the functions in staging." in page.text("main")
    assert [row[0] for row in page.rows()] == ["figlet"]
    assert len(broker.sent("GET", "/system/functions")) == 1


def test_a_namespace_that_cannot_be_listed_does_not_hide_the_others(tmp_path: Path) -> None:
    class Half(PeoplesBroker):
        def answer(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.query == b"namespace=dev":
                return httpx2.Response(403, text="Not allowed: Function:List on dev.\n")
            return super().answer(request)

    page = look(tmp_path, "/functions", Half())
    assert "dev: Not allowed: Function:List on dev." in page.text("main")
    assert [row[0] for row in page.rows()] == ["cows"]


# -- one function


def test_a_functions_page_has_its_facts_and_no_value_of_its_environment(tmp_path: Path) -> None:
    page = look(tmp_path, "/functions/dev/figlet")
    said = page.text("main")
    for fact in ("registry.example.com/figlet:1.4.2", "figlet -f small", "1024", "figlet-key"):
        assert fact in said
    assert "API_KEY" in said
    assert "Only names are shown: a value may be a secret." in said
    assert "the-secret-value" not in page.source
    assert "com.openfaas.scale.min" in said
    assert "128Mi" in said
    assert "4.0 MiB of memory" in said


@pytest.mark.parametrize("action", ["Logs", "Invoke", "Scale", "Delete"])
def test_a_function_has_no_button_for_what_one_may_not_do(tmp_path: Path, action: str) -> None:
    broker = PeoplesBroker()
    broker.denied = {f"Function:{action}"}
    page = look(tmp_path, "/functions/dev/figlet", broker)
    base, part = "/functions/dev/figlet", action.lower()
    leads = {a["href"] for a in page.all("a")} | {form["action"] for form in page.all("form")}
    assert f"{base}/{part}" not in leads
    others = {"logs", "invoke", "scale", "delete"} - {part}
    assert {f"{base}/{other}" for other in others} <= leads
    assert "the statement guard/s denies it." in page.text("main")


@pytest.mark.parametrize("path", ["/functions/dev/nope", "/functions/kube-system/x"])
def test_a_function_that_is_not_there_is_not_found(tmp_path: Path, path: str) -> None:
    look(tmp_path, path, status=404)


@pytest.mark.parametrize("name", ["a%2Fb", "..%2f..", "a%00", "a b", "%E2%80%AE", "x" * 300])
def test_a_name_that_no_function_has_asks_the_gateway_for_nothing(
    tmp_path: Path, name: str
) -> None:
    broker = PeoplesBroker()
    look(tmp_path, f"/functions/dev/{name}", broker, status=404)
    assert not [r for r in broker.requests if r.url.path.startswith("/system")]


def test_scaling_asks_the_gateway_and_shows_how_it_goes(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    _, answer = submit(tmp_path, "/functions/dev/figlet/scale", {"replicas": "5"}, broker, 303)
    assert answer.headers["location"] == "/functions/dev/figlet/scaling"
    (sent,) = broker.sent("POST", "/system/scale-function/figlet")
    assert json.loads(sent.content) == {
        "serviceName": "figlet",
        "replicas": 5,
        "namespace": "dev",
    }


@pytest.mark.parametrize("replicas", ["", "-1", "1.5", "1001", "99999999999", "٣", "x", "1e3"])
def test_a_number_of_replicas_that_is_none_is_refused_here(tmp_path: Path, replicas: str) -> None:
    broker = PeoplesBroker()
    page, _ = submit(tmp_path, "/functions/dev/figlet/scale", {"replicas": replicas}, broker, 400)
    assert "must be a whole number from 0 to 1000" in page.text("main")
    assert broker.sent("POST", "/system/scale-function/figlet") == []


def test_progress_is_told_until_all_replicas_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation.dashboard.pages.scaling._LOOK_SECONDS", 0.01)

    class Growing(PeoplesBroker):
        ready = 1

        def _one(self, namespace: str, name: str) -> httpx2.Response:
            self.ready = min(5, self.ready + 1)
            shown = {**FIGLET, "replicas": 5, "availableReplicas": self.ready}
            return httpx2.Response(200, json=shown)

    page = look(tmp_path, "/functions/dev/figlet/scaling", Growing())
    log = page.text("main")
    assert [f"{n} of 5 ready" in log for n in (2, 3, 4, 5)] == [True] * 4
    assert "All replicas are ready." in log


def test_deleting_takes_one_more_click(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    page = look(tmp_path, "/functions/dev/figlet/delete", broker)
    assert page.text("h1") == "Delete figlet?"
    assert broker.sent("DELETE", "/system/functions") == []
    _, answer = submit(tmp_path, "/functions/dev/figlet/delete", {}, broker, 303)
    assert answer.headers["location"] == "/functions?namespace=dev&done=figlet"
    (sent,) = broker.sent("DELETE", "/system/functions")
    assert json.loads(sent.content) == {"functionName": "figlet", "namespace": "dev"}


def test_a_deletion_that_the_broker_refuses_shows_its_sentence(tmp_path: Path) -> None:
    class Refuses(PeoplesBroker):
        def answer(self, request: httpx2.Request) -> httpx2.Response:
            if request.method == "DELETE":
                sentence = "Not allowed: Function:Delete on dev:figlet. Request id abc.\n"
                return httpx2.Response(403, text=sentence, headers={"content-type": "text/plain"})
            return super().answer(request)

    page, _ = submit(tmp_path, "/functions/dev/figlet/delete", {}, Refuses(), 403)
    assert page.text("h1") == "You may not do this"
    assert "Function:Delete on dev:figlet. Request id abc." in page.text("main")


@pytest.mark.parametrize("path", ["scale", "delete", "invoke"])
@pytest.mark.parametrize("forged", ["no token", "another site", "a GET"])
def test_nothing_changes_by_a_request_that_is_not_from_our_page(
    tmp_path: Path, path: str, forged: str
) -> None:
    async def story(browser: Browser, broker: PeoplesBroker, _: InProcess) -> None:
        target = f"/functions/dev/figlet/{path}"
        form = {"csrf": await browser.csrf(), "replicas": "5", "body": "x"}
        if forged == "no token":
            answer = await browser.post(target, {**form, "csrf": "guess"})
        elif forged == "another site":
            answer = await browser.post(target, form, {"Sec-Fetch-Site": "same-site"})
        else:
            answer = await browser.get(f"{target}?replicas=5&csrf={form['csrf']}&body=x")
        assert answer.status_code in {403, 200, 405}
        assert not [r for r in broker.requests if r.method == "DELETE"]
        assert broker.sent("POST", "/system/scale-function/figlet") == []
        assert broker.sent("POST", "/function/figlet.dev") == []

    tell(tmp_path, story)


# -- invoke


def test_a_function_is_called_in_the_persons_name_and_its_answer_is_text(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.result = httpx2.Response(
        201, text="<b>bold</b>\n\x1b[31mred", headers={"content-type": "text/html"}
    )
    form = {"body": "two\r\nlines", "content_type": "application/json"}
    page, answer = submit(tmp_path, "/functions/dev/figlet/invoke", form, broker)
    (sent,) = broker.sent("POST", "/function/figlet.dev")
    assert sent.content == b"two\nlines"
    assert sent.headers["content-type"] == "application/json"
    assert page.text("pre") == "<b>bold</b>\n\\x1b[31mred"
    assert "HTTP 201" in page.text("main")
    assert page.all("b") == []
    assert answer.headers["content-type"].startswith("text/html")


def test_of_a_long_answer_the_beginning_is_shown(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.result = httpx2.Response(200, content=b"x" * 200_000)
    page, _ = submit(tmp_path, "/functions/dev/figlet/invoke", {"body": "x"}, broker)
    assert len(page.text("pre")) == 64 * 1024
    assert "longer than 64 KiB" in page.text("main")


@pytest.mark.parametrize("content_type", ["text", "text/plain\r\nX: y", "a/b; c", "é/x"])
def test_a_content_type_that_is_none_is_refused_here(tmp_path: Path, content_type: str) -> None:
    broker = PeoplesBroker()
    form = {"body": "x", "content_type": content_type}
    submit(tmp_path, "/functions/dev/figlet/invoke", form, broker, 400)
    assert broker.sent("POST", "/function/figlet.dev") == []


# -- logs


def test_the_last_lines_of_a_log_are_shown_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.lines = [
        {"timestamp": "2027-01-15T07:58:00.123456789Z", "text": "\x1b[32mok\x1b[0m\tdone\x07"},
        {"timestamp": "never", "text": "x" * 5000},
    ]
    page = look(tmp_path, "/functions/dev/figlet/logs?tail=5", broker)
    lines = page.texts("main", "p")
    assert "07:58:00 ok done\\x07" in lines
    assert f"{'x' * 1997}..." in lines
    (sent,) = broker.sent("GET", "/system/logs")
    query = dict(sent.url.params)
    assert query == {"name": "figlet", "namespace": "dev", "tail": "5", "follow": "false"}


def test_a_gateway_that_sends_more_lines_than_asked_for_is_cut_short(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.lines = [{"timestamp": "", "text": f"line {n}"} for n in range(50)]
    page = look(tmp_path, "/functions/dev/figlet/logs?tail=3", broker)
    assert [t for t in page.texts("main", "p") if t.startswith("line")] == [
        "line 0",
        "line 1",
        "line 2",
    ]


def test_a_followed_log_ends_with_a_sentence(tmp_path: Path) -> None:
    page = look(tmp_path, "/functions/dev/figlet/logs?follow=1")
    lines = page.texts("main", "p")
    assert "07:58:00 started" in lines
    assert any(line.startswith("The gateway ended the log.") for line in lines)
    assert streaming.MARK not in page.source


def test_a_log_that_may_not_be_followed_says_why(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.errors["/system/logs"] = 403, "Not allowed: Function:Logs on dev:figlet."
    page = look(tmp_path, "/functions/dev/figlet/logs?follow=1", broker)
    assert "Not allowed: Function:Logs on dev:figlet." in page.text("main")
    look(tmp_path, "/functions/dev/figlet/logs", broker, status=403)


class Endless(PeoplesBroker):
    """A broker whose log has a line every few milliseconds, and more than any test reads."""

    before_each: Callable[[int], Awaitable[None]]
    number = 0

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/system/logs":
            return httpx2.Response(200, content=self.stream())
        return super().answer(request)

    async def stream(self) -> Any:
        while self.number < 500:
            await self.before_each(self.number)
            self.number += 1
            yield json.dumps({"text": f"line {self.number}"}).encode() + b"\n"


def test_a_followed_log_ends_after_some_minutes(tmp_path: Path) -> None:
    broker = Endless()

    async def story(browser: Browser, _: PeoplesBroker, dashboard: InProcess) -> None:
        async def later(number: int) -> None:
            await asyncio.sleep(0.001)
            if number == 5:
                dashboard.clock.advance(streaming.MOST_SECONDS + 1)

        broker.before_each = later
        said = read((await browser.get("/functions/dev/figlet/logs?follow=1")).text)
        assert "line 5" in said.text("main")
        assert "The page went on for 5 minutes and ends here." in said.text("main")

    tell(tmp_path, story, broker)


@pytest.mark.parametrize("how", ["signed out", "expired"])
def test_a_followed_log_ends_when_the_session_does(tmp_path: Path, how: str) -> None:
    broker = Endless()

    async def story(browser: Browser, _: PeoplesBroker, dashboard: InProcess) -> None:
        csrf = await browser.csrf()
        cookies = dict(browser.cookies)

        async def later(number: int) -> None:
            await asyncio.sleep(0.001)
            if number == 5 and how == "signed out":
                other = dashboard.browser()
                other.cookies = dict(cookies)
                await other.post("/auth/logout", {"csrf": csrf})
                await other.aclose()
                dashboard.clock.advance(10)
            elif number == 5:
                dashboard.clock.advance(13 * 3600)

        broker.before_each = later
        said = read((await browser.get("/functions/dev/figlet/logs?follow=1")).text)
        assert "Your session has ended." in said.text("main") or how == "expired"
        assert len(said.all("footer")) == 1

    tell(tmp_path, story, broker)


def test_a_silent_log_sends_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_BEAT_SECONDS", 0.01)
    broker = Endless()

    async def story(browser: Browser, _: PeoplesBroker, dashboard: InProcess) -> None:
        async def later(number: int) -> None:
            if number == 1:
                await asyncio.sleep(0.1)
                dashboard.clock.advance(streaming.MOST_SECONDS + 1)

        broker.before_each = later
        answer = await browser.get("/functions/dev/figlet/logs?follow=1")
        assert answer.text.count("<!-- -->") > 1

    tell(tmp_path, story, broker)


def test_one_person_cannot_take_every_connection_with_logs_that_are_followed(
    tmp_path: Path,
) -> None:
    broker = Endless()

    async def story(browser: Browser, _: PeoplesBroker, dashboard: InProcess) -> None:
        over = asyncio.Event()

        async def held(number: int) -> None:
            if number == 2 and not over.is_set():
                await over.wait()
                dashboard.clock.advance(streaming.MOST_SECONDS + 1)

        broker.before_each = held
        path = "/functions/dev/figlet/logs?follow=1"
        opened = [asyncio.create_task(browser.get(path)) for _ in range(8)]
        await asyncio.sleep(0.5)
        refused = [task for task in opened if task.done()]
        assert len(refused) == 4
        said = read(refused[0].result().text)
        assert "Too many pages like this one are open." in said.text("main")
        assert len(said.all("footer")) == 1
        over.set()
        await asyncio.gather(*opened)
        assert not dashboard.parts.growing.under_way

    tell(tmp_path, story, broker)


def test_more_pages_at_once_than_a_person_reads_are_refused(tmp_path: Path) -> None:
    async def story(browser: Browser, _: PeoplesBroker, dashboard: InProcess) -> None:
        answers = await asyncio.gather(*(browser.get("/functions") for _ in range(30)))
        told = Counter(answer.status_code for answer in answers)
        assert told.keys() == {200, 429}
        assert told[200] >= 8
        assert not dashboard.parts.pages.under_way
        assert (await browser.get("/functions")).status_code == 200

    tell(tmp_path, story)


# -- events


def test_events_are_listed_with_their_outcome_in_words(tmp_path: Path) -> None:
    page = look(tmp_path, "/events")
    first, second = page.rows()
    assert first[0].startswith("2027-01-15 07:59:00 UTC")
    assert first[1].replace("✗", "").split() == ["refused", "400"]
    assert first[2:] == ["Token exchange", str(JOB["sub"]), "no_role_admits"]
    assert "granted" in second[1]
    assert second[2] == "Function:Update dev:figlet"
    assert "other replicas have their own" in page.text("main")


def test_the_filters_and_the_cursor_go_to_the_broker(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.next = "cursor-2"
    path = "/events?outcome=refused&kind=exchange&function=dev:figlet&shadow_role=octo-next"
    page = look(tmp_path, path, broker)
    sent = dict(broker.sent("GET", "/federation/v1/audit")[0].url.params)
    assert sent == {
        "limit": "50",
        "outcome": "refused",
        "kind": "exchange",
        "function": "dev:figlet",
        "shadow_role": "octo-next",
    }
    older = next(a["href"] for a in page.all("a") if a.get("rel") == "next")
    assert older.endswith("&before=cursor-2")
    look(tmp_path, older, broker)
    assert broker.sent("GET", "/federation/v1/audit")[1].url.params["before"] == "cursor-2"


def test_no_event_that_fits_and_no_event_at_all_are_told_apart(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.events = []
    assert "Nothing is recorded yet." in look(tmp_path, "/events", broker).text("main")
    for filters in ("outcome=granted", "shadow_role=octo-next"):
        assert "No event fits." in look(tmp_path, f"/events?{filters}", broker).text("main")


def test_a_function_that_is_written_wrong_is_told_beside_the_form(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.errors["/federation/v1/audit"] = 400, "function must be <namespace>:<function>."
    page = look(tmp_path, "/events?function=figlet", broker)
    assert "function must be <namespace>:<function>." in page.text("main")
    assert {"id": "function", "value": "figlet"}.items() <= page.field("function").items()


def test_a_refusal_is_shown_condition_by_condition_the_closest_role_first(tmp_path: Path) -> None:
    page = look(tmp_path, EVENT_PATH)
    assert page.text("h1") == "Token exchange: why was it refused?"
    roles = [d["data-role"] for d in page.all("details")]
    assert roles == ["octo-main", "elsewhere"]
    assert page.rows("Conditions of the Role octo-main beside the token") == [
        ["✓ holds", "iss", "is https://token.actions.githubusercontent.com", str(JOB["iss"])],
        ["✓ holds", "repository_owner_id", "is 13420041", "13420041"],
        ["✗ fails", "ref", "is refs/heads/main", "refs/heads/feature/login"],
    ]
    assert "1 of 3 conditions fails" in page.text("main")
    assert "kind: Role" in page.text("pre")
    assert "Pin the environment too, if there is one." in page.text("main")
    assert "No Role admits the subject token." in page.text("main")


def test_shadow_roles_are_shown_as_what_would_have_admitted(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    event, role = broker.events[0], copy.deepcopy(broker.explanation["roles"][0])
    event |= {"shadow_roles": ["octo-next"], "shadow_policies": ["release"]}
    role |= {"name": "octo-next", "would_admit": True, "policies": ["release"]}
    broker.explanation["shadow_roles"] = [role]
    broker.explanation["event"] = event
    assert "in the shadow: octo-next" in look(tmp_path, "/events", broker).rows()[0][4]
    page = look(tmp_path, EVENT_PATH, broker)
    assert "octo-next would have admitted it" in page.text("main")
    assert "Policies they would have givenrelease" in page.text("main")
    (shown,) = [d for d in page.all("details") if "data-shadow" in d]
    assert shown["data-shadow"] == "octo-next"
    assert "would admit" in page.text("main")
    assert page.rows("Conditions of the Role octo-next beside the token")


def test_who_can_says_that_a_shadow_role_admits_nobody(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.who_can["roles"][0]["shadowed"] = True
    page = look(tmp_path, "/who-can?action=Function:Create&resource=dev:figlet", broker)
    assert "This is a shadow Role: it is recorded, and admits nobody." in page.text("main")


def test_an_event_without_claims_says_what_decides_about_them(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.errors["/federation/v1/explain"] = 400, "The event keeps no claims."
    page = look(tmp_path, EVENT_PATH, broker)
    assert "This event cannot be explained: The event keeps no claims." in page.text("main")
    assert "audit-claims" in page.text("main")


def test_who_may_not_read_the_documents_sees_the_event_alone(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.denied = {"Documents:Read"}
    page = look(tmp_path, EVENT_PATH, broker)
    assert page.all("details") == []
    assert "you need the action Documents:Read too" in page.text("main")
    assert ["ref", "refs/heads/feature/login"] in page.rows("Claims of the token")
    assert broker.sent("POST", "/federation/v1/explain") == []


def test_claims_that_the_trail_does_not_keep_whole_are_named(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.denied = {"Documents:Read"}
    broker.events[0]["claims_cut"] = ["environment_url", "workflow"]
    page = look(tmp_path, EVENT_PATH, broker)
    assert "The trail does not have these claims as the token said them" in page.text("main")
    assert "environment_url, workflow" in page.text("main")


def test_an_event_of_the_gateway_leads_to_who_can_do_it(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.errors["/federation/v1/explain"] = 400, "It keeps no claims."
    page = look(tmp_path, f"/events/{'0' * 31}2", broker)
    assert page.text("h1") == "Function:Update: granted"
    links = [a["href"] for a in page.all("a")]
    assert "/who-can?action=Function%3AUpdate&resource=dev%3Afiglet" in links
    assert "cannot be explained" not in page.text("main")


def test_an_event_is_looked_for_in_a_few_pages_of_the_trail_and_not_for_ever(
    tmp_path: Path,
) -> None:
    class Long(PeoplesBroker):
        def _audit(self, query: Any) -> Any:
            return {**super()._audit(query), "next": "more"}

    broker = Long()
    broker.errors["/federation/v1/explain"] = 400, "No such event."
    page = look(tmp_path, f"/events/{'0' * 31}9", broker, status=404)
    assert len(broker.sent("GET", "/federation/v1/audit")) == 5
    assert "not among the recent ones of this replica" in page.text("main")


# -- documents


def test_documents_with_problems_come_first(tmp_path: Path) -> None:
    page = look(tmp_path, "/documents")
    rows = page.rows()
    assert [row[0] for row in rows] == ["guard", "octo-main"]
    assert "warning W109 no Role uses this Policy" in rows[0][2]
    assert rows[0][3] == "policies.yaml:9"
    assert "Newer documents are not in force." in page.text("main")
    assert "roles.yaml:1: error[D002]: not YAML" in page.text("main")


def test_documents_are_filtered(tmp_path: Path) -> None:
    page = look(tmp_path, "/documents?kind=Role&name=OCTO")
    assert [row[0] for row in page.rows()] == ["octo-main"]
    assert "No document fits." in look(tmp_path, "/documents?name=zz").text("main")


def test_a_document_is_shown_as_it_is_in_force(tmp_path: Path) -> None:
    page = look(tmp_path, "/documents/Role/octo-main")
    assert '"jwt:iss"' in page.text("pre")
    assert "/who-can?role=octo-main" in [a["href"] for a in page.all("a")]
    look(tmp_path, "/documents/Role/nope", status=404)


# -- what if


def test_pasted_claims_and_accesses_are_asked_about(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    form = {
        "claims": json.dumps(dict(JOB)),
        "action-1": "Function:Create",
        "resource-1": "dev:figlet",
        "action-2": "Function:Delete",
    }
    page, _ = submit(tmp_path, "/what-if", form, broker)
    (sent,) = broker.sent("POST", "/federation/v1/explain")
    assert json.loads(sent.content) == {
        "claims": dict(JOB),
        "access": [{"action": "Function:Create", "resource": "dev:figlet"}],
    }
    assert [d["data-role"] for d in page.all("details")] == ["octo-main", "elsewhere"]
    assert page.field("value-1")["value"] == JOB["iss"]


def test_without_accesses_the_claims_alone_are_asked_about(tmp_path: Path) -> None:
    """The broker takes no empty list."""
    broker = PeoplesBroker()
    submit(tmp_path, "/what-if", {"claims": json.dumps(dict(JOB))}, broker)
    (sent,) = broker.sent("POST", "/federation/v1/explain")
    assert json.loads(sent.content) == {"claims": dict(JOB)}


def test_one_value_is_changed_one_left_out_one_added_and_the_others_stay(tmp_path: Path) -> None:
    async def story(browser: Browser, broker: PeoplesBroker, _: InProcess) -> None:
        page = read((await browser.get(f"/what-if?event={EVENT['event_id']}")).text)
        fields = {
            field["name"]: field.get("value", "")
            for field in page.all("input")
            if re.match("name-|text-|json-|csrf", field.get("name", ""))
        }
        names = {value: name for name, value in fields.items() if name.startswith("name-")}
        fields[names["ref"].replace("name", "text")] = "refs/heads/main"
        fields[names["event_name"].replace("name", "text")] = ""
        fields |= {"new-name": "environment", "new-text": "production"}
        answer = await browser.post("/what-if", fields)
        assert answer.status_code == 200, answer.text
        asked = json.loads(broker.sent("POST", "/federation/v1/explain")[-1].content)["claims"]
        expected = {**JOB, "ref": "refs/heads/main", "environment": "production"}
        del expected["event_name"]
        assert asked == expected

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({}, "There are no claims yet."),
        ({"claims": "{"}, "The claims are not a JSON object"),
        ({"claims": "[1]"}, "The claims are not a JSON object"),
        ({"claims": '{"a": 1, "a": 2}'}, "twice"),
        ({"claims": "{}", "action-1": "Function:Fly", "resource-1": "*"}, "is not an action"),
        ({"claims": "{}", "action-1": "Function:Get", "resource-1": "a/b"}, "Access 1:"),
        ({"name-1": "n", "json-1": "nope"}, "The claim n is not JSON"),
    ],
)
def test_a_form_that_cannot_be_read_is_shown_again_with_the_reason(
    tmp_path: Path, form: dict[str, str], sentence: str
) -> None:
    broker = PeoplesBroker()
    page, _ = submit(tmp_path, "/what-if", form, broker, 400)
    assert sentence in page.text("main")
    assert broker.sent("POST", "/federation/v1/explain") == []
    assert page.text("textarea").strip() == form.get("claims", "")


@pytest.mark.parametrize(
    "value", ["text", "", "a\nb", "7", 7, True, None, [1, "a"], {"a": {"b": 1}}]
)
def test_a_line_of_the_form_is_read_as_the_value_that_it_shows(value: object) -> None:
    from federation.dashboard.pages.what_if import Line

    assert Line.of("claim", value).read() == value


def test_a_token_with_very_many_claims_is_changed_as_json(tmp_path: Path) -> None:
    claims = {f"claim-{n}": "x" for n in range(90)}
    page, _ = submit(tmp_path, "/what-if", {"claims": json.dumps(claims)})
    assert "more than 80 claims" in page.text("main")
    assert json.loads(page.text("textarea")) == claims


def test_recorded_jobs_are_offered_to_those_who_may_read_the_trail(tmp_path: Path) -> None:
    page = look(tmp_path, "/what-if")
    assert f"/what-if?event={EVENT['event_id']}" in [a["href"] for a in page.all("a")]
    broker = PeoplesBroker()
    broker.denied = {"Audit:Read"}
    page = look(tmp_path, "/what-if", broker)
    assert "recorded job" not in page.text("main")


# -- who can


def test_who_can_says_what_a_token_must_say(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    page = look(tmp_path, "/who-can?action=Function:Create&resource=dev:figlet", broker)
    said = page.text("main")
    assert "ref is refs/heads/main" in said
    assert "Sometimes denied by the statement guard/no-create" in said
    sent = dict(broker.sent("GET", "/federation/v1/who-can")[0].url.params)
    assert sent == {"action": "Function:Create", "resource": "dev:figlet"}


def test_what_a_role_gives_is_said_in_words(tmp_path: Path) -> None:
    said = look(tmp_path, "/who-can?role=octo-main").text("main")
    assert "May create and update functions" in said
    assert "ref is like refs/heads/*" in said


@pytest.mark.parametrize(
    "query", ["action=Function:Fly&resource=*", "action=Function:Get&resource=a/b"]
)
def test_a_question_that_is_none_is_told_beside_the_form(tmp_path: Path, query: str) -> None:
    broker = PeoplesBroker()
    page = look(tmp_path, f"/who-can?{query}", broker, status=400)
    assert "There is no answer." in page.text("main")
    assert broker.sent("GET", "/federation/v1/who-can") == []


def test_nobody_is_an_answer_too(tmp_path: Path) -> None:
    broker = PeoplesBroker()
    broker.who_can["roles"] = []
    page = look(tmp_path, "/who-can?action=Function:Create&resource=dev:figlet", broker)
    assert "Nobody can." in page.text("main")


# -- words


@pytest.mark.parametrize(
    ("actions", "said"),
    [
        (["*"], ["do everything"]),
        (["Function:*", "System:Info"], ["do everything with functions", "see the version of the gateway"]),
        (["Function:List"], ["list functions"]),
        (["Function:Delete", "Function:List", "Function:Scale"], ["list, delete and scale functions"]),
        (["Audit:Read", "Other:Thing"], ["read the audit trail", "Other:Thing"]),
    ],
)  # fmt: skip
def test_actions_are_said_in_words(actions: list[str], said: list[str]) -> None:
    assert words.actions_in_words(actions) == said


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        ("*", "everywhere"),
        ("dev:*", "in the namespace dev"),
        ("*:*", "in every namespace"),
        ("team-*:*", "in the namespaces like team-*"),
        ("dev:figlet", "in the namespace dev, for the name figlet"),
        ("dev:fig*", "in the namespace dev, for the names like fig*"),
    ],
)
def test_resources_are_said_in_words(resource: str, said: str) -> None:
    assert words.resource_in_words(resource) == said


@pytest.mark.parametrize(
    ("when", "age"),
    [
        (NOW, "just now"),
        (NOW - 59, "59 seconds ago"),
        (NOW - 60, "1 minute ago"),
        (NOW - 7200, "2 hours ago"),
        (NOW - 86400 * 40, "40 days ago"),
        (NOW + 900, "in 15 minutes"),
    ],
)
def test_an_age_is_said_in_words(when: float, age: str) -> None:
    at = moment(when, NOW)
    assert at is not None
    assert at.age == age


@pytest.mark.parametrize("when", ["", "never", "2027-13-01T00:00:00Z", 1e30, float("nan")])
def test_what_is_no_time_is_none(when: float | str) -> None:
    assert moment(when, NOW) is None
