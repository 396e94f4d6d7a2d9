"""
A person who signs in by form posts, without a browser: it takes a second where Chromium takes
three. `python -m tests.harness.headless_sign_in NAME URL` does so for a command line whose
`BROWSER` it is.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
import sys
from collections.abc import Mapping
from typing import Any

import httpx2

from tests.harness.sign_on_parts import CLI, password

_FORM = re.compile(r"<form\b[^>]*>.*?</form>", re.DOTALL | re.IGNORECASE)
_ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')
_INPUT = re.compile(r"<(?:input|button)\b[^>]*>", re.IGNORECASE)
_STEPS = 20


class NotSignedIn(Exception):
    """The provider's pages did not lead back to the client. The text says where they ended."""


class Person:
    """
    Somebody with a cookie jar, who fills in the provider's forms.

    A second sign-in at the same provider is asked for no password.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._client = httpx2.Client(timeout=60, trust_env=False)

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def follow(self, address: str, redirect_uri: str) -> str:
        """
        Open the authorization *address*, sign in, agree, and return where it redirects to.

        Nothing is sent to *redirect_uri*: the address that begins so is returned. Raises:
        NotSignedIn.
        """
        answer = self._get(address)
        for _ in range(_STEPS):
            if answer.is_redirect:
                place = str(answer.url.join(answer.headers["location"]))
                if place.startswith(redirect_uri):
                    return place
                answer = self._get(place)
            elif form := _form(answer.text):
                answer = self._submit(answer, form)
            else:
                break
        raise NotSignedIn(f"{answer.status_code} {answer.url.path}: {_words(answer.text)}")

    def approve(self, address: str) -> str:
        """
        Approve the device whose `verification_uri_complete` is *address*.

        Return the words of the last page. Raises: NotSignedIn.
        """
        answer = self._get(address)
        for _ in range(_STEPS):
            if answer.is_redirect:
                answer = self._get(str(answer.url.join(answer.headers["location"])))
            elif form := _form(answer.text):
                answer = self._submit(answer, form)
            elif answer.status_code == 200:
                return _words(answer.text)
            else:
                break
        raise NotSignedIn(f"{answer.status_code} {answer.url.path}: {_words(answer.text)}")

    def _get(self, address: str) -> httpx2.Response:
        return self._kept(self._client.get(address))

    def _submit(self, page: httpx2.Response, form: str) -> httpx2.Response:
        tag = dict(_ATTRIBUTE.findall(form.partition(">")[0]))
        inputs = [dict(_ATTRIBUTE.findall(found)) for found in _INPUT.findall(form)]
        values = {
            each["name"]: html.unescape(each.get("value", ""))
            for each in inputs
            # A page has buttons for yes and for no.
            if "name" in each and each["name"] not in {"cancel", "abort", "rememberMe"}
        }
        for field in {"username", "login"} & set(values):
            values[field] = self.name
        if "password" in values:
            values["password"] = password(self.name)
        target = page.url.join(html.unescape(tag.get("action", "")))
        return self._kept(self._client.post(target, data=values))

    def _kept(self, answer: httpx2.Response) -> httpx2.Response:
        # Keycloak's cookies are Secure on http too. Browsers keep them for loopback.
        for cookie in self._client.cookies.jar:
            cookie.secure = False
        return answer


def _form(page: str) -> str:
    """The page's form that asks for something, or ""."""
    found = _FORM.findall(page)
    return next((form for form in found if 'method="post"' in form.lower()), "")


def _words(page: str) -> str:
    without = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL | re.IGNORECASE)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", without)).split())[:1000]


def sign_in(
    issuer: str,
    redirect_uri: str,
    name: str = "alice",
    *,
    client_id: str = CLI,
    client_secret: str | None = None,
    scope: str = "openid profile email",
    **more: str,
) -> dict[str, Any]:
    """
    Sign a person in by the code flow with PKCE, and return the answer of the token endpoint.

    *more* are more parameters of the authorization request, as `prompt="consent"`.
    """
    with Person(name) as person, httpx2.Client(timeout=60, trust_env=False) as client:
        metadata = client.get(f"{issuer}/.well-known/openid-configuration").json()
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe()
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "client_id": client_id,
            "response_type": "code",
            "redirect_uri": redirect_uri,
            "scope": scope,
            "state": state,
            "nonce": secrets.token_urlsafe(),
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **more,
        }
        address = httpx2.URL(metadata["authorization_endpoint"], params=asked)
        answer = httpx2.URL(person.follow(str(address), redirect_uri)).params
        if answer.get("state") != state or "code" not in answer:
            raise NotSignedIn(f"the client was told: {dict(answer)}")
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": redirect_uri,
            "client_id": client_id,
            "code_verifier": verifier,
            **({"client_secret": client_secret} if client_secret else {}),
        }
        granted = client.post(metadata["token_endpoint"], data=form)
    tokens: dict[str, Any] = granted.raise_for_status().json()
    return tokens


def open_as(name: str, address: str) -> int:
    """
    Do what a person does whose browser is opened at *address*: sign in, and return to the client.

    Return the status of the client's answer. *address* asks for a redirect, or is a device's page.
    """
    asked: Mapping[str, str] = httpx2.URL(address).params
    with Person(name) as person:
        if "redirect_uri" not in asked:
            person.approve(address)
            return 200
        place = person.follow(address, asked["redirect_uri"])
    # The fragment of the implicit flow stays with the browser.
    return httpx2.get(place, timeout=60, trust_env=False).status_code


if __name__ == "__main__":
    sys.exit(open_as(sys.argv[1], sys.argv[2]) >= 400)
