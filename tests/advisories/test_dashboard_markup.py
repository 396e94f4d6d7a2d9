"""
Markup in any field stays text: names, images, labels, log lines, events, claims, documents.

Whoever writes one of these is a stranger to the person who reads the page. Every field of every
answer is replaced by markup; the pages must have the same elements and attributes as with harmless
values, and show the markup as text.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.harness.dashboard import Browser, running
from tests.harness.dashboard_answers import EVENT, PeoplesBroker
from tests.harness.html import Page, read

HOSTILE = {
    "an image": "<img src=x onerror=alert(1)>",
    "a script": "</code></td></table></main><script>alert(1)</script>",
    "the end of an attribute": "\"'><svg onload=alert(1)>",
    "a comment": "<!-- the lines --><b>--><!--",
    "the end of a text area": "</textarea></title></pre><iframe src=//evil.example>",
    "an address": "javascript:alert(1)//https://evil.example/",
    "a template": "{{ 7*7 }}{% include 'base.html' %}${7*7}",
    "a lone surrogate": "a\ud800<b>",
    "another direction": "\u202e<b>\u2066\x00\x1b[2J",
}
PLAIN = "plain"
PAGES = {
    "you": "/",
    "functions": "/functions",
    "functions, filtered": "/functions?namespace=dev&name=%s",
    "function": "/functions/dev/figlet",
    "delete": "/functions/dev/figlet/delete",
    "invoke": "/functions/dev/figlet/invoke",
    "logs": "/functions/dev/figlet/logs",
    "follow": "/functions/dev/figlet/logs?follow=1",
    "scaling": "/functions/dev/figlet/scaling",
    "events": "/events?function=%s",
    "event": f"/events/{EVENT['event_id']}",
    "an event of the gateway": f"/events/{'0' * 31}2",
    "documents": "/documents?name=%s",
    "documents, all": "/documents",
    "what if": "/what-if",
    "what if of an event": f"/what-if?event={EVENT['event_id']}",
    "who can": "/who-can?action=Function:Create&resource=dev:figlet",
    "who can, asked in vain": "/who-can?action=%s&resource=%s",
    "what a Role gives": "/who-can?role=%s",
    "nothing": "/no/such/page/%s",
}

_KEPT = {
    # What the dashboard compares or counts by; a broker that lies here shows no page at all.
    *("event_id", "effect", "time", "path", "createdAt", "timestamp", "action", "next"),
    *("severity", "response_code"),
}


_FREE = {"claims", "labels", "annotations", "envVars", "limits", "usage", "spec"}
"""Objects whose members anybody may name."""


class Hostile(PeoplesBroker):
    """A broker and a gateway in which every text says *text*."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.events[0] |= {"shadow_roles": ["r"], "shadow_policies": ["p"]}
        shadow = {**self.explanation["roles"][0], "would_admit": True, "policies": ["p"]}
        self.explanation |= {"shadow_roles": [shadow], "event": self.events[0]}
        for name in ("whoami", "documents", "explanation", "who_can", "role_gives", "events"):
            setattr(self, name, self._filled(getattr(self, name)))
        self.functions = [
            {**self._filled(function), "name": function["name"], "namespace": function["namespace"]}
            for function in self.functions
        ]
        self.functions.append({**self.functions[0], "name": text})
        self.namespaces = ["dev", text]
        self.lines = [{"timestamp": text, "instance": text, "text": text}] * 2
        self.result = httpx2.Response(
            200,
            content=text.encode("utf-8", "surrogatepass"),
            headers={"content-type": "text/html"},
        )

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        answer = super().answer(request)
        if "json" not in answer.headers.get("content-type", ""):
            return answer
        # A lone surrogate cannot be sent in UTF-8; JSON has an escape for it.
        return httpx2.Response(answer.status_code, content=answer.content, headers=answer.headers)

    def _filled(self, value: Any, *, names: bool = False) -> Any:
        """*value* with the text in place of every text, and of the members' names with *names*."""
        if isinstance(value, dict):
            return {
                f"{self.text}{number}" if names else name: (
                    inner if name in _KEPT else self._filled(inner, names=name in _FREE)
                )
                for number, (name, inner) in enumerate(value.items())
            }
        if isinstance(value, list):
            return [self._filled(inner) for inner in value]
        return self.text if isinstance(value, str) else value


def see(folder: Path, path: str, text: str) -> Page:
    """The page at *path*, whose every value says *text*."""

    async def told() -> str:
        async with running(folder, broker=Hostile(text)) as dashboard:
            browser = await dashboard.signed_in(name=text, **{text: text})
            answer = await browser.get(path.replace("%s", str(httpx2.QueryParams({"": text}))[1:]))
            await browser.aclose()
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            # Else the pages would be harmless because there are none.
            assert answer.status_code in ({200, 400} if "no/such" not in path else {404}), (
                answer.text
            )
            return answer.text

    return read(asyncio.run(told()))


def shape(page: Page) -> list[tuple[str, tuple[str, ...]]]:
    """The elements of a page and the names of their attributes."""
    return [(tag, tuple(attributes)) for tag, attributes in page.found]


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES.keys())
@pytest.mark.parametrize(
    "text", [t for n, t in HOSTILE.items() if "surrogate" not in n],
    ids=[n for n in HOSTILE if "surrogate" not in n],
)  # fmt: skip
def test_markup_in_every_field_of_every_page_stays_text(
    tmp_path: Path, path: str, text: str
) -> None:
    page, plain = see(tmp_path, path, text), see(tmp_path, path, PLAIN)
    allowed = {tag for tag, _ in shape(plain)} | {
        "div",
        "p",
        "ul",
        "li",
        "a",
        "strong",
        "nav",
        "wbr",
    }
    assert set(page.tags) <= allowed
    assert not {"script", "img", "svg", "iframe", "style", "object"} & set(page.tags)
    for tag, attributes in page.found:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("href", "action", "src", "content"):
            value = attributes.get(name, "")
            assert not re.match(r"\s*(javascript|data|https?|//)", value, re.IGNORECASE), value
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2066]", _without_fields(page))
    assert "49" not in page.text("main").replace("1.4", "") or text != HOSTILE["a template"]


def _without_fields(page: Page) -> str:
    """The source without what stands in a field, which must come back as it was."""
    return re.sub(r'value="[^"]*"|<textarea.*?</textarea>', "", page.source, flags=re.DOTALL)


@pytest.mark.parametrize("text", [HOSTILE["an image"], HOSTILE["the end of an attribute"]])
def test_the_markup_is_there_as_text(tmp_path: Path, text: str) -> None:
    for path in ("/", "/functions/dev/figlet", "/documents", f"/events/{EVENT['event_id']}"):
        assert see(tmp_path, path, text).text("main").count(text) >= 3


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_a_person_types_comes_back_as_text(tmp_path: Path, text: str) -> None:
    async def story(browser: Browser) -> list[str]:
        csrf, sent = await browser.csrf(), text.encode("utf-8", "replace").decode()
        forms: list[tuple[str, dict[str, str]]] = [
            ("/what-if", {"claims": sent}),
            ("/what-if", {"claims": json.dumps({sent: sent, "list": [sent]})}),
            ("/what-if", {"name-1": sent, "text-1": sent, "new-name": sent, "new-text": sent}),
            ("/what-if", {"name-1": sent, "json-1": sent}),
            ("/what-if", {"claims": "{}", "action-1": sent, "resource-1": sent}),
            ("/functions/dev/figlet/invoke", {"body": sent, "content_type": "text/plain"}),
            ("/functions/dev/figlet/invoke", {"body": "x", "content_type": sent}),
            ("/functions/dev/figlet/scale", {"replicas": sent}),
        ]
        answers = [await browser.post(path, {"csrf": csrf, **form}) for path, form in forms]
        return [answer.text for answer in answers]

    async def told() -> list[str]:
        async with running(tmp_path, broker=PeoplesBroker()) as dashboard:
            browser = await dashboard.signed_in()
            try:
                return await story(browser)
            finally:
                await browser.aclose()

    for source in asyncio.run(told()):
        page = read(source)
        assert not {"script", "img", "svg", "iframe", "b"} & set(page.tags)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_sentence_of_the_broker_stays_text(tmp_path: Path, text: str) -> None:
    sentence = text.encode("utf-8", "replace").decode()
    made: list[Callable[[], httpx2.Response]] = [
        lambda: httpx2.Response(403, text=sentence),
        lambda: httpx2.Response(404, text=sentence, headers={"content-type": "text/html"}),
        lambda: httpx2.Response(400, json={"error_description": sentence, "request_id": sentence}),
        lambda: httpx2.Response(500, json={"error_description": [sentence]}),
    ]
    for make in made:

        class Refuses(PeoplesBroker):
            def answer(self, request: httpx2.Request) -> httpx2.Response:
                answer = make  # noqa: B023  it is used up within this turn
                return answer() if request.url.path.endswith("whoami") else super().answer(request)

        async def told(broker: PeoplesBroker) -> str:
            async with running(tmp_path, broker=broker) as dashboard:
                browser = await dashboard.signed_in()
                answer = await browser.get("/")
                await browser.aclose()
                return answer.text

        page = read(asyncio.run(told(Refuses())))
        assert not {"script", "img", "svg", "iframe", "b"} & set(page.tags)
        assert page.all("h1")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
def test_a_link_of_another_site_tells_of_no_deletion(tmp_path: Path, site: str) -> None:
    async def told() -> str:
        async with running(tmp_path, broker=PeoplesBroker()) as dashboard:
            browser = await dashboard.signed_in()
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
            answer = await browser.get("/functions?namespace=dev&done=payments", **headers)
            await browser.aclose()
            assert answer.status_code == 200
            return answer.text

    said = "payments" in asyncio.run(told())
    assert said == (site == "same-origin")


def test_a_function_cannot_end_the_page_that_follows_its_log(tmp_path: Path) -> None:
    """The mark at which the lines stand must not be one that a value can write."""
    page = see(tmp_path, "/functions/dev/figlet/logs?follow=1", "<!-- the lines -->")
    assert page.tags.count("footer") == 1
    assert page.text("main").count("<!-- the lines -->") >= 2
