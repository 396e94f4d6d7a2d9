"""The objects that all pages share: `app.build` makes them once, and `parts_of` finds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx2
import jinja2
from starlette.requests import Request
from starlette.types import Scope

from federation.background import Background
from federation.dashboard.at_once import AtOnce
from federation.dashboard.provider import ProviderInUse
from federation.dashboard.renewal import Renewal
from federation.dashboard.sealing import Sealer
from federation.dashboard.sessions import Sessions
from federation.dashboard.token_endpoint import BrokerTokens
from federation.web.rate_limit import Buckets, Network, caller_of


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one dashboard."""

    public_url: str
    gateway: str
    """The broker's URL as this process reaches it."""
    gateway_url: str
    """The broker's public URL, for people to read."""
    http: httpx2.AsyncClient
    provider: ProviderInUse
    broker: BrokerTokens
    sessions: Sessions
    renewal: Renewal
    sign_ins: Sealer
    """Seals the sign-in that a browser has under way."""
    notices: Sealer
    """Seals what the next page has to say."""
    templates: jinja2.Environment
    trusted_proxies: Sequence[Network]
    attempts: Buckets
    """Limits failed sign-ins by address."""
    logouts: Buckets
    """Limits refused logout tokens by address."""
    clock: Callable[[], float]
    background: Background = field(default_factory=Background)
    pages: AtOnce = field(default_factory=lambda: AtOnce(of_one=8, of_all=60))
    """Limits the pages that are being made. The client has 100 connections."""
    growing: AtOnce = field(default_factory=lambda: AtOnce(of_one=4, of_all=30))
    """Limits the pages that grow, each of which holds a connection for minutes."""

    def caller(self, scope: Scope) -> str:
        """The address that a request comes from."""
        return caller_of(scope, self.trusted_proxies)


def parts_of(request: Request) -> Parts:
    """The parts of the dashboard that answers *request*."""
    parts: Parts = request.app.state.parts
    return parts
