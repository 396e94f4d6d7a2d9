"""
Sign a person in, in one of four ways.

- `code`: in a browser of this machine, with PKCE. The answer comes to a listener on loopback.
- `device`: in a browser of any other device, with a short code.
- `client-credentials`: nobody; the client itself, by its secret.
- `implicit`: in a browser, for providers that know neither PKCE nor public clients. Only by name.

`auto` is `code` where a browser can be opened, and else `device` where the provider has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx2

from federation.claims import Claims
from federation.client import ClientError
from federation.client.connection import open_async_client
from federation.sign_on.answers import Answer
from federation.sign_on.browser import open_browser
from federation.sign_on.callback import listening
from federation.sign_on.client_secret import client_of
from federation.sign_on.oauth_errors import ProviderRefused
from federation.sign_on.provider import DeviceSignIn, OpenIdProvider, Pending, Tokens
from federation.sign_on.published import require_no_relay
from federation.sign_on.sessions import CLIENT_CREDENTIALS, SignInSettings

GRANTS = ("auto", "code", "device", CLIENT_CREDENTIALS, "implicit")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person whom the provider has signed in, and how."""

    issuer: str
    grant: str
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class SignIn(Generic[Result]):
    """
    One sign-in.

    *finish* does what remains to be done, such as the exchange. It is awaited before the page in
    the browser tells the outcome.
    """

    settings: SignInSettings
    prompt: str
    opens_browser: bool
    """False if the person opens the address, on purpose (`--no-browser`)."""
    why_no_browser: str
    """The reason why no browser can be opened here; empty if one can."""
    clock: Callable[[], float]
    tell: Callable[[str], None]
    finish: Callable[[SignedIn], Awaitable[Result]]
    gateway: str
    others: Mapping[str, str]
    """For each other authority of this person a gateway for which they sign in there."""

    async def run(self) -> Result:
        """Sign in, and return what *finish* makes of it. Raises: ClientError."""
        async with open_async_client() as http:
            client = client_of(self.settings)
            provider = await OpenIdProvider.discover(
                self.settings.authority, client, http, self.clock
            )
            match self.settings.grant:
                case "auto":
                    return await self._best(provider, http)
                case "device":
                    return await self._on_device(provider, await provider.begin_device())
                case "client-credentials":
                    tokens = await provider.client_credentials()
                    return await self._finished(provider, CLIENT_CREDENTIALS, tokens)
                case "implicit":
                    self.tell(
                        "Warning: with the implicit flow the ID token passes through the browser."
                        " Use it only with a provider that cannot do better (RFC 9700, section"
                        " 2.1.2)."
                    )
                    return await self._in_browser(provider, implicit=True)
                case _:
                    return await self._by_code(provider, http)

    async def _best(self, provider: OpenIdProvider, http: httpx2.AsyncClient) -> Result:
        """In a browser of this machine if there is one, else on another device if possible."""
        why = self.why_no_browser
        if not why or not self.opens_browser:
            return await self._by_code(provider, http)
        if provider.has_device_flow:
            self.tell(f"No browser can be opened here. {why} Sign in on another device.")
            try:
                begun = await provider.begin_device()
            except ProviderRefused as refused:
                self.tell(f"That is not possible: {refused.problem}")
            else:
                return await self._on_device(provider, begun)
        else:
            self.tell(
                f"No browser can be opened here. {why} The provider has no sign-in on another"
                " device (device flow) either."
            )
        port = self.settings.port
        self.tell(
            "Open the address below in a browser on this machine. In a browser of another machine,"
            f" have its port lead here first: ssh -L {port}:127.0.0.1:{port} THIS-HOST"
            if port
            else "Open the address below in a browser on this machine."
        )
        return await self._by_code(provider, http)

    async def _by_code(self, provider: OpenIdProvider, http: httpx2.AsyncClient) -> Result:
        if self.settings.published:
            await require_no_relay(
                self.settings, self.gateway, provider.metadata, self.others, http
            )
        return await self._in_browser(provider)

    async def _in_browser(self, provider: OpenIdProvider, *, implicit: bool = False) -> Result:
        host, port = self.settings.redirect_host, self.settings.port
        async with listening(host, port) as callback:
            pending = Pending.fresh(callback.redirect_uri)
            url = provider.authorization_url(pending, prompt=self.prompt, implicit=implicit)
            opens = self.opens_browser and not self.why_no_browser
            if opens:
                open_browser(callback.start_at(url))
                self.tell("Your browser opens to sign in. If it does not, open this address:")
            else:
                self.tell("Open this address to sign in:")
            self.tell("")
            self.tell(f"  {url}")  # not the address for one use: people open it again
            self.tell("")
            self.tell("Waiting for the sign-in. Ctrl-C ends it.")
            if implicit:
                answer = await callback.answer(
                    lambda given: _own_answer(provider, given, pending), implicit=True
                )
                tokens = await provider.implicit_tokens(answer, pending)
            else:
                code = await callback.answer(lambda given: provider.code_of(given, pending))
                tokens = await provider.redeem(code, pending)
            return await self._finished(provider, "implicit" if implicit else "code", tokens)

    async def _on_device(self, provider: OpenIdProvider, begun: DeviceSignIn) -> Result:
        self.tell(f"Open {begun.verification_uri} on any device, and enter this code:")
        self.tell("")
        self.tell(f"  {begun.user_code}")
        self.tell("")
        self._tell_of_another_server(provider, begun)
        if begun.verification_uri_complete:
            self.tell(f"Or open {begun.verification_uri_complete}, and compare the code.")
        minutes = begun.expires_in_seconds / 60
        self.tell(f"Waiting for the sign-in, for {minutes:.0f} minutes at most. Ctrl-C ends it.")
        tokens = await provider.finish_device(begun)
        return await self._finished(provider, "device", tokens)

    def _tell_of_another_server(self, provider: OpenIdProvider, begun: DeviceSignIn) -> None:
        """
        Tell where the page is, if a gateway named the provider and the page is another server's.

        A hostile provider can begin a sign-in of its own at a provider that the person knows, and
        show that one's page and code (RFC 8628, section 5.4).
        """
        own = httpx2.URL(provider.issuer).host
        shown = (begun.verification_uri, begun.verification_uri_complete or begun.verification_uri)
        elsewhere = sorted({httpx2.URL(page).host for page in shown} - {own})
        if self.settings.published and elsewhere:
            self.tell(
                f"Notice: the page is at {' and '.join(elsewhere)}, and not at {own}, which the"
                f" gateway named. Enter the code only if you know that people sign in for {own}"
                " there. Else somebody else may have begun this sign-in, and would act as you."
            )

    async def _finished(self, provider: OpenIdProvider, grant: str, tokens: Tokens) -> Result:
        try:
            return await self.finish(SignedIn(provider.issuer, grant, tokens))
        except BaseException:
            await _give_up(provider, tokens)
            raise


def _own_answer(provider: OpenIdProvider, answer: Answer, pending: Pending) -> Answer:
    """Return *answer* if it is the one of this sign-in. Raises: as `OpenIdProvider.code_of`."""
    provider.id_token_of(answer, pending)
    return answer


async def _give_up(provider: OpenIdProvider, tokens: Tokens) -> None:
    """
    Revoke at the provider the tokens that will not be used, as far as the provider allows.

    Otherwise a refresh token that is saved nowhere would stay valid for weeks.
    """
    if tokens.refresh_token:
        try:
            await provider.revoke(tokens.refresh_token)
        except ClientError:
            return


def person_of(claims: Claims) -> str:
    """Return the name by which a person is shown."""
    for name in ("email", "preferred_username", "name"):
        value = claims.get(name)
        if isinstance(value, str) and value:
            return value
    return str(claims.get("sub", ""))
