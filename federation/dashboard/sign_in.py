"""
Sign-in: the authorization code flow with PKCE (OpenID Connect Core, section 3.1; RFC 9700).

A sign-in under way is a sealed cookie, so only the browser that began it can finish it, within ten
minutes and once: `state` is claimed in the session store, on every replica. What comes back is
verified by `sign_on`, and exchanged at the broker, which decides whether the person may come in.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from federation.client import ClientError
from federation.dashboard.advice import advice_on
from federation.dashboard.cookies import SESSION, SIGN_IN, cookie, drop_cookie, set_cookie
from federation.dashboard.notices import refused
from federation.dashboard.parts import Parts, parts_of
from federation.dashboard.sessions import key_of
from federation.dashboard.token_endpoint import NoAnswer, Refused
from federation.errors import Refusal
from federation.sign_on.provider import ForeignAnswer, Pending

SIGN_IN_SECONDS = 600
_OWNER = "sign-in"
_PATH_CHARS = 1024
_QUERY_BYTES = 32 * 1024
_PARAMETERS = 20
_LOCAL_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*")
_SELF = re.compile(r"/auth(/|\?|$)")
_AGAIN = "Sign in again."


@dataclass(frozen=True, slots=True)
class _SignIn:
    """A sign-in under way, as its browser keeps it."""

    pending: Pending
    to: str
    began: float


class _NotSignedIn(Exception):
    """A failed sign-in, with the reason that the person may read."""

    def __init__(
        self, sentence: str, advice: str = _AGAIN, status: int = 400, *, goes_on: bool = False
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.advice = advice
        self.status = status
        self.goes_on = goes_on
        """True if the sign-in under way may still be finished."""


async def login(request: Request) -> Response:
    """`GET /auth/login`: send the browser to the provider."""
    parts = parts_of(request)
    try:
        _check_attempts(parts, request)
        provider = parts.provider.current()
    except _NotSignedIn as no:
        return _refused(request, no)
    except ClientError as error:
        return _refused(request, _NotSignedIn(error.problem, error.advice, 503))
    pending = Pending.fresh(callback_url(parts.public_url))
    answer = RedirectResponse(provider.authorization_url(pending), 303)
    sealed = parts.sign_ins.seal(
        _OWNER,
        {
            "state": pending.state,
            "nonce": pending.nonce,
            "verifier": pending.verifier,
            "to": local_path(request.query_params.get("to", "/")),
            "began": parts.clock(),
        },
    )
    set_cookie(answer, SIGN_IN, sealed, SIGN_IN_SECONDS)
    return answer


async def callback(request: Request) -> Response:
    """`GET /auth/callback`: sign the person in, if the provider's answer is for this browser."""
    parts = parts_of(request)
    try:
        _check_attempts(parts, request)
        return await _sign_in(request, parts)
    except _NotSignedIn as no:
        if no.status < 500:
            parts.attempts.take(parts.caller(request.scope))
        return _refused(request, no)
    except Refusal as unavailable:  # of the session store
        log = structlog.get_logger("federation.dashboard")
        log.error("the session store does not answer", **unavailable.evidence)
        sentence = "The store of sessions does not answer at the moment."
        return _refused(request, _NotSignedIn(sentence, "Sign in again in a minute.", 503))


def local_path(to: str) -> str:
    """
    *to* if it is a path of this dashboard, else `/`.

    `//host` and `/\\host` are other hosts for a browser, and so are some that are decoded once
    more on the way. Paths of the sign-in itself would lead in a circle.
    """
    decoded = unquote(unquote(to))
    if (
        len(to) > _PATH_CHARS
        or not _LOCAL_PATH.fullmatch(to)
        or decoded[1:2] in {"/", "\\"}
        or any(ord(char) < 0x20 or ord(char) == 0x7F for char in decoded)
        or "\\" in decoded
        or {".", ".."} & set(decoded.partition("?")[0].split("/"))
        or _SELF.match(decoded)
    ):
        return "/"
    return to


def callback_url(public_url: str) -> str:
    """The redirect URI, which is registered at the provider exactly so."""
    return f"{public_url}/auth/callback"


async def _sign_in(request: Request, parts: Parts) -> Response:
    sign_in = _under_way(parts, cookie(request, SIGN_IN))
    log = structlog.get_logger("federation.dashboard")
    try:
        code = await _code(request, parts, sign_in)
        tokens = await parts.provider.current().redeem(code, sign_in.pending)
    except ClientError as error:
        log.info("sign-in refused", by="provider", problem=error.problem)
        raise _NotSignedIn(error.problem, advice_on(error)) from error
    try:
        granted = await parts.broker.exchange(tokens.subject_token, parts.caller(request.scope))
    except Refused as no:
        log.info("sign-in refused", by="broker", reason=no.reason, request_id=no.request_id)
        sentence = f"{no.problem} Request id of the broker: {no.request_id}."
        raise _NotSignedIn(sentence, no.advice, 403) from no
    except NoAnswer as error:
        log.warning("sign-in failed", by="broker", problem=error.problem)
        raise _NotSignedIn(error.problem, error.advice, 503) from error
    old = await parts.sessions.find(cookie(request, SESSION))
    cookie_id = await parts.sessions.begin(tokens, granted)
    if not cookie_id:
        await parts.broker.revoke(granted.access_token)
        raise _NotSignedIn("The provider ended this sign-in before it was complete.")
    if old is not None:
        await parts.sessions.end(old)
        await parts.broker.revoke(old.session.access_token)
    log.info(
        "signed in",
        sub=str(tokens.claims.get("sub", "")),
        session=key_of(cookie_id)[:12],
        client=parts.caller(request.scope),
    )
    answer = RedirectResponse(parts.public_url + sign_in.to, 303)
    drop_cookie(answer, SIGN_IN)
    set_cookie(answer, SESSION, cookie_id)
    return answer


async def _code(request: Request, parts: Parts, sign_in: _SignIn) -> str:
    """The code in the answer, which is used up by this. Raises: _NotSignedIn, ClientError."""
    pending = sign_in.pending
    try:
        code = parts.provider.current().code_of(_answer_in(request), pending)
    except ForeignAnswer as foreign:
        # Any site can send the browser here. The sign-in goes on waiting for its own answer.
        sentence = "This answer does not belong to the sign-in that this browser began."
        raise _NotSignedIn(sentence, goes_on=True) from foreign
    except ClientError:
        await _claim(parts, sign_in)
        raise
    if not await _claim(parts, sign_in):
        raise _NotSignedIn("This sign-in was finished before. Each answer is taken once.")
    return code


async def _claim(parts: Parts, sign_in: _SignIn) -> bool:
    key = "sign-in-" + hashlib.sha256(sign_in.pending.state.encode()).hexdigest()
    return await parts.sessions.store.spend(key, sign_in.began + SIGN_IN_SECONDS, sign_in.began)


def _under_way(parts: Parts, sealed: str) -> _SignIn:
    match parts.sign_ins.open(_OWNER, sealed):
        case {
            "state": str(state),
            "nonce": str(nonce),
            "verifier": str(verifier),
            "to": str(to),
            "began": int(began) | float(began),
        } if parts.clock() < began + SIGN_IN_SECONDS:
            redirect_uri = callback_url(parts.public_url)
            return _SignIn(Pending(redirect_uri, state, nonce, verifier), to, began)
    raise _NotSignedIn("This browser has no sign-in under way, or it took more than ten minutes.")


def _answer_in(request: Request) -> list[tuple[str, str]]:
    query = request.scope["query_string"]
    try:
        if len(query) > _QUERY_BYTES:
            raise ValueError("too long")
        return parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_PARAMETERS,
        )
    except ValueError as error:
        raise _NotSignedIn("The provider's answer cannot be read.", goes_on=True) from error


def _check_attempts(parts: Parts, request: Request) -> None:
    if wait := parts.attempts.wait_seconds(parts.caller(request.scope)):
        sentence = "Too many sign-ins from this address failed in the last minute."
        raise _NotSignedIn(sentence, f"Wait {wait} seconds, then sign in again.", 429, goes_on=True)


def _refused(request: Request, no: _NotSignedIn) -> Response:
    answer = refused(request, "Not signed in", no.sentence, no.status, advice=no.advice)
    if not no.goes_on:
        drop_cookie(answer, SIGN_IN)
    return answer
