"""
An OpenID Connect provider, as one of its clients sees it.

The provider's answers are foreign input: each is bounded, checked and refused with a sentence.
ID tokens are verified as the broker verifies subject tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx2

from federation.claims import Claims
from federation.client import ClientError
from federation.client.connection import ANSWER_SECONDS
from federation.sign_on import answers, device, logout_token
from federation.sign_on.answers import Answer, ForeignAnswer
from federation.sign_on.bounded import Bounded
from federation.sign_on.device import DeviceSignIn
from federation.sign_on.id_token import Verifier
from federation.sign_on.logout_token import LoggedOut
from federation.sign_on.metadata import Metadata, discover
from federation.sign_on.pending import Pending
from federation.sign_on.requests import Client, Endpoints
from federation.sign_on.tokens import Answered, Tokens

__all__ = [
    "Client",
    "DeviceSignIn",
    "ForeignAnswer",
    "LoggedOut",
    "OpenIdProvider",
    "Pending",
    "Tokens",
]


@dataclass(frozen=True, slots=True)
class OpenIdProvider:
    """
    The provider at one authority, for one client. Every method raises ClientError.

    A refusal of the provider is a ProviderRefused, with its OAuth error; a token that does not
    verify is a TokenRefused, with its reason (`oauth_errors`).
    """

    metadata: Metadata
    _endpoints: Endpoints = field(repr=False)
    _verifier: Verifier = field(repr=False)
    _clock: Callable[[], float] = field(repr=False)
    _pause: Callable[[float], Awaitable[None]] = field(repr=False)

    @classmethod
    async def discover(
        cls,
        authority: str,
        client: Client,
        http: httpx2.AsyncClient,
        clock: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> OpenIdProvider:
        """
        Return the provider whose metadata *authority* publishes.

        *http* is open as long as the provider is used. *clock* says the time since the epoch;
        *pause* waits for so many seconds. Each answer ends within *answer_seconds*.
        """
        transport = Bounded(http, answer_seconds)
        metadata = await discover(authority, transport)
        verifier = Verifier.of(metadata, client.client_id, transport, clock)
        return cls(metadata, Endpoints(metadata, client, transport), verifier, clock, pause)

    @property
    def issuer(self) -> str:
        """The provider's issuer, exactly as it stands in `iss` of its tokens."""
        return self.metadata.issuer

    @property
    def ends_sessions(self) -> bool:
        """True if the provider says where a person signs out (`end_session_endpoint`)."""
        return bool(self.metadata.end_session_endpoint)

    @property
    def has_device_flow(self) -> bool:
        """True if a person can sign in on another device."""
        return bool(self.metadata.device_authorization_endpoint)

    def authorization_url(
        self, pending: Pending, *, prompt: str = "", implicit: bool = False
    ) -> str:
        """
        Return the address at which the person signs in.

        With *implicit* the ID token itself comes back, in the body of a form if the provider can
        (`form_post`), else in the fragment. No access token is asked for.
        """
        wanted = {
            "redirect_uri": pending.redirect_uri,
            "state": pending.state,
            "nonce": pending.nonce,
        }
        if prompt:
            wanted["prompt"] = prompt
        if not implicit:
            return self._endpoints.authorization_url(**wanted, code_verifier=pending.verifier)
        if "form_post" in self.metadata.response_modes:
            wanted["response_mode"] = "form_post"
        return self._endpoints.authorization_url(**wanted, response_type="id_token")

    def code_of(self, answer: Answer, pending: Pending) -> str:
        """
        Return the authorization code in the *answer*, the parameters of the callback in order.

        Raises: ForeignAnswer if it is not an answer to *pending* (state, RFC 9207 `iss`, a
        parameter twice); ClientError with what the provider says, if it says no.
        """
        return answers.code_of(answer, pending, self.metadata)

    async def redeem(self, code: str, pending: Pending) -> Tokens:
        """Return the tokens for *code*. The nonce of the ID token is that of *pending*."""
        given = await self._endpoints.tokens(
            "authorization_code",
            code=code,
            redirect_uri=pending.redirect_uri,
            code_verifier=pending.verifier,
        )
        id_token = self._id_token(given)
        return _tokens(given, await self._verifier.signed_in(id_token, pending.nonce))

    def id_token_of(self, answer: Answer, pending: Pending) -> str:
        """
        Return the ID token in the *answer* of the implicit flow. It is not verified.

        Raises: as `code_of`.
        """
        return answers.id_token_of(answer, pending, self.metadata)

    async def implicit_tokens(self, answer: Answer, pending: Pending) -> Tokens:
        """Return the ID token in the *answer* of the implicit flow, verified with its nonce."""
        id_token = answers.id_token_of(answer, pending, self.metadata)
        claims = await self._verifier.signed_in(id_token, pending.nonce)
        return Tokens(id_token=id_token, access_token="", refresh_token="", claims=claims)

    async def begin_device(self) -> DeviceSignIn:
        """Begin a sign-in on another device."""
        return await device.begin(self._endpoints)

    async def finish_device(self, sign_in: DeviceSignIn) -> Tokens:
        """Wait until the person has signed in on the other device."""
        given = await device.finish(self._endpoints, sign_in, self._clock, self._pause)
        return _tokens(given, await self._verifier.on_other_device(self._id_token(given)))

    async def client_credentials(self) -> Tokens:
        """
        Return the tokens of the client itself (RFC 6749, section 4.4).

        Scopes that speak of people are not asked for. The subject token is the access token.
        """
        if not self._endpoints.client.secret:
            raise ClientError(
                "A client that signs in itself needs a client secret.",
                "Give it with --client-secret-file.",
            )
        given = await self._endpoints.tokens(
            "client_credentials", scope=self._endpoints.client.own_scope
        )
        claims = await self._verifier.of_client(given.access_token)
        return Tokens(
            id_token="",
            access_token=given.access_token,
            refresh_token=given.refresh_token,
            claims=claims,
        )

    async def refresh(self, refresh_token: str, subject: str) -> Tokens:
        """
        Return new tokens of the same person, whose `sub` is *subject*.

        The refresh token of the result replaces *refresh_token*: where the provider gives no new
        one, the old one is valid on. ProviderRefused with `invalid_grant` means that the session
        is over.
        """
        given = await self.send_refresh(refresh_token)
        claims = await self.verify_refreshed(self._id_token(given), subject)
        return _tokens(given, claims, refresh_token)

    async def send_refresh(self, refresh_token: str) -> Answered:
        """
        Return what the provider gives for *refresh_token*. Nothing of it is verified.

        For those who must keep the new refresh token before anything can fail: many providers take
        each one once. `verify_refreshed` then verifies the ID token.
        """
        return await self._endpoints.tokens("refresh_token", refresh_token=refresh_token)

    async def verify_refreshed(self, id_token: str, subject: str) -> Claims:
        """Return the claims of *id_token* of a refresh, whose `sub` must be *subject*."""
        return await self._verifier.refreshed(id_token, subject)

    async def revoke(self, refresh_token: str) -> bool:
        """Revoke *refresh_token* (RFC 7009). False if the provider has no such endpoint."""
        url = self.metadata.revocation_endpoint
        if url:
            await self._endpoints.revoke(url, refresh_token)
        return bool(url)

    def sign_out_url(self, id_token: str, back_to: str = "", state: str = "") -> str:
        """
        Return the address that ends the session at the provider; empty if it names none.

        *id_token* lets the provider end the session without a question. It stands in the URL, so
        in the browser's history: give one that has expired, or none. `sign_out_form` sends it in
        a body. *back_to* must be registered at the provider.
        """
        url, fields = self.sign_out_form(id_token, back_to, state)
        return str(httpx2.URL(url).copy_merge_params(dict(fields))) if url else ""

    def sign_out_form(
        self, id_token: str, back_to: str = "", state: str = ""
    ) -> tuple[str, tuple[tuple[str, str], ...]]:
        """
        Return the address to which a browser posts a form that ends the session, and its fields.

        OpenID Connect RP-Initiated Logout 1.0, section 2. The address is empty if the provider
        names none.
        """
        fields = {
            "client_id": self._endpoints.client.client_id,
            "id_token_hint": id_token,
            "post_logout_redirect_uri": back_to,
            "state": state,
        }
        given = tuple((name, value) for name, value in fields.items() if value)
        return self.metadata.end_session_endpoint, given

    async def verify_logout_token(self, token: str) -> LoggedOut:
        """Return what a back-channel logout token ends."""
        return await logout_token.verify_logout_token(token, self._verifier)

    def _id_token(self, given: Answered) -> str:
        if given.id_token:
            return given.id_token
        raise ClientError(
            f"{self.issuer} gave no ID token.",
            "Sign in again. If that does not help, the operator of the provider allows this client"
            " the scope openid.",
        )


def _tokens(given: Answered, claims: Claims, refresh_token: str = "") -> Tokens:
    return Tokens(
        id_token=given.id_token,
        access_token=given.access_token,
        refresh_token=given.refresh_token or refresh_token,
        claims=claims,
    )
