"""
`federation dashboard` as a process, and a person's browser at it, for tests.

`WebBrowser` follows redirects and keeps cookies as browsers do for `*.localhost`, also Secure ones
without TLS. It resolves every such name to this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from tests.harness import documents
from tests.harness.broker import Served
from tests.harness.process import Server, free_port

CLIENT_ID = "openfaas"
_HOPS = 10


class ServedDashboard(Server):
    """A dashboard in a process of its own. Its state is in *folder*."""

    def __init__(
        self,
        folder: Path,
        *,
        gateway: str,
        issuer: str,
        client_id: str = CLIENT_ID,
        port: int = 0,
        public_url: str = "",
        flags: Mapping[str, str | Path] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        port = port or free_port()
        self.public_url = public_url or f"http://dashboard.localhost:{port}"
        options: dict[str, object] = {
            "public-url": self.public_url,
            "gateway": gateway,
            "issuer": issuer,
            "client-id": client_id,
            "state": folder / "state",
            "port": port,
            "log-format": "json",
            **(flags or {}),
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        super().__init__(["federation", "dashboard", *words], folder, environ)


class WebBrowser:
    """A person's browser without a screen: cookies by host, redirects, forms."""

    def __init__(self) -> None:
        self.cookies: dict[str, dict[str, str]] = {}
        """By host and port."""
        self.visited: list[str] = []
        """The addresses of all requests, in their order."""
        self._client = httpx2.Client(timeout=30, trust_env=False, follow_redirects=False)

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> httpx2.Response:
        """The page at *url*, after its redirects."""
        return self._follow("GET", url, None, headers or {})

    def post(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """The page after a form was sent by a page of the same origin."""
        own = {"Sec-Fetch-Site": "same-origin"}
        return self._follow("POST", url, form, own if headers is None else headers)

    def csrf(self, page: httpx2.Response) -> str:
        """The CSRF token in the forms of *page*."""
        found = re.search(r'name="csrf" value="([^"]+)"', page.text)
        assert found, page.text
        return found[1]

    def close(self) -> None:
        self._client.close()

    def _follow(
        self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> httpx2.Response:
        for _ in range(_HOPS):
            answer = self._ask(method, url, form, headers)
            if not answer.is_redirect:
                return answer
            url = str(httpx2.URL(url).join(answer.headers["location"]))
            method, form = "GET", None
            headers = {}
        raise AssertionError(f"redirected again and again: {self.visited[-_HOPS:]}")

    def _ask(
        self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> httpx2.Response:
        self.visited.append(url)
        parts = urlsplit(url)
        jar = self.cookies.setdefault(parts.netloc, {})
        sent = {"Host": parts.netloc, **headers}
        if jar:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        here = parts._replace(netloc=f"127.0.0.1:{parts.port}").geturl()
        answer = self._client.request(method, here, data=form, headers=sent)
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            if "max-age=0" in line.lower():
                jar.pop(name, None)
            else:
                jar[name] = value
        return answer


@contextmanager
def browsing() -> Iterator[WebBrowser]:
    """A browser inside the `with` block."""
    browser = WebBrowser()
    try:
        yield browser
    finally:
        browser.close()


def people(iss: str, *subjects: str, client_id: str = CLIENT_ID) -> str:
    """Documents that admit the people *subjects* of the provider *iss*."""
    return documents.as_text(
        documents.DEPLOY,
        documents.document("JwtIssuer", "people", {"iss": iss, "clients": [client_id]}),
        documents.document(
            "Role",
            "people",
            {
                "policy": ["deploy"],
                "condition": {"StringEqual": {"jwt:iss": [iss], "jwt:sub": list(subjects)}},
            },
        ),
    )


def broker_for(folder: Path, iss: str, *subjects: str, client_id: str = CLIENT_ID) -> Served:
    """A broker that admits *subjects*."""
    return Served(folder, people(iss, *subjects, client_id=client_id))
