"""
The values of an exchange: the request, the grant, and the services that both roads use.

A form becomes an `ExchangeRequest` in `web/token`; later code never sees the form.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from types import coroutine

from federation.audit import Journal
from federation.audit.event import Trail, token_sha256
from federation.audit.kept_claims import AuditClaims
from federation.claims import Claims
from federation.issuers.key_ring import KeyRing
from federation.policy.index import PolicySets
from federation.sources import Source
from federation.state import Store
from federation.tokens import mint
from federation.tokens.signing_keys import SigningKeys


class TokenType:
    """Token type identifiers of RFC 8693, section 3."""

    ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
    ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
    JWT = "urn:ietf:params:oauth:token-type:jwt"


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """The parameters of a token exchange (RFC 8693, section 2.1), checked and complete."""

    subject_token: str = field(repr=False)
    subject_token_type: str = TokenType.ID_TOKEN
    audience: tuple[str, ...] = ()
    for_functions: bool = False
    roles: tuple[str, ...] = ()
    issued_token_type: str = TokenType.ACCESS_TOKEN


@dataclass(frozen=True, slots=True)
class Grant:
    """A minted token, with the members of the response to its caller."""

    token: str = field(repr=False)
    issued_token_type: str
    expires_in_seconds: int
    scope: str | None


@dataclass(slots=True)
class Broker:
    """The services that an exchange uses; `app.build` makes them."""

    issuer_url: str
    source: Source
    keys: KeyRing
    policies: PolicySets
    signing: SigningKeys
    state: Store
    journal: Journal
    clock: Callable[[], float]
    """Seconds since the epoch."""
    audit_claims: AuditClaims
    """Whose claims the events of exchanges keep."""
    limit_repeats: Callable[[str], None]
    """
    Called with what identifies a token that is taken more than once, before each exchange of it.

    Raises: Refusal with `too_many_exchanges`.
    """


def draft(claims: Claims, request: ExchangeRequest, broker: Broker) -> mint.Draft:
    """The token of *claims* before it is signed. Raises: Refusal with `token_too_large`."""
    typ = mint.FUNCTION_TOKEN_TYPE if request.for_functions else mint.ACCESS_TOKEN_TYPE
    return mint.draft(claims, broker.signing.signs, typ)


async def grant(
    drafted: mint.Draft, request: ExchangeRequest, broker: Broker, trail: Trail, now: float
) -> Grant:
    """
    Sign *drafted*, record the event, and only then return the token.

    Raises: Refusal with `audit_unavailable`.
    """
    await next_stage()
    token = drafted.signed()
    trail.issued_token_sha256 = token_sha256(token)
    await next_stage()
    await broker.journal.record(trail.event(200))
    await next_stage()  # not later: a caller that is cancelled here gets the subject token back
    return Grant(
        token,
        request.issued_token_type,
        max(1, drafted.expires - int(now)),
        "function" if request.for_functions else None,
    )


@coroutine
def next_stage() -> Generator[None]:
    """
    Let the other exchanges in progress reach this stage too.

    Stage by stage, the code of a stage stays in the CPU cache for all of them. Without these
    yields an exchange takes 1.2 times as long, and each one that is left out costs some of that.
    """
    yield  # to the event loop, as asyncio.sleep(0) does, with one object instead of three
