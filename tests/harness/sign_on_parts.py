"""The people and the clients that both providers of the sign-on tests know."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.harness.process import free_port

Object = Mapping[str, Any]
"""An object in JSON."""

PEOPLE = ("alice", "bob", "mallory")
"""
Alice is in the groups `dev` and `platform/operators`. Bob is in `readers`, and his address is not
verified. Mallory's name and group are markup.
"""
MARKUP = "<img src=x onerror=alert(1)>"
"""It stands in Mallory's name and in Mallory's group."""

CLI, CONFIDENTIAL, DASHBOARD, IMPLICIT, ROBOT = (
    "openfaas",
    "openfaas-confidential",
    "openfaas-dashboard",
    "openfaas-implicit",
    "openfaas-robot",
)
"""
The clients' ids. The first is public, with PKCE and the device flow. The second has the same and a
secret.
"""
SECRETS: Mapping[str, str] = {
    CONFIDENTIAL: "confidential-secret-0123456789abcdef",
    DASHBOARD: "dashboard-secret-0123456789abcdef",
    ROBOT: "robot-secret-0123456789abcdef",
}
"""The secrets of the clients that have one."""


def password(name: str) -> str:
    """The password of a person."""
    return f"{name}-password"


@dataclass(frozen=True)
class Ports:
    """The loopback ports in the redirect addresses that a provider allows."""

    callback: int = field(default_factory=free_port)
    """Of the command line: `http://127.0.0.1:<port>/oauth/callback`. 31111 is allowed too."""
    dashboard: int = field(default_factory=free_port)

    @property
    def callback_url(self) -> str:
        """The redirect address of the command line."""
        return f"http://127.0.0.1:{self.callback}/oauth/callback"

    @property
    def dashboard_url(self) -> str:
        """The dashboard's public URL, on another site than the provider."""
        return f"http://dashboard.localhost:{self.dashboard}"

    def fill(self, text: str) -> str:
        """*text* with the ports in the places of `{callback_port}` and `{dashboard_port}`."""
        ports = {"{callback_port}": self.callback, "{dashboard_port}": self.dashboard}
        for place, port in ports.items():
            text = text.replace(place, str(port))
        return text


def publishes_metadata(issuer: str) -> bool:
    """True if an issuer on loopback answers with its metadata."""
    # http.client, because it costs nothing while the server starts.
    place = urlsplit(issuer)
    connection = http.client.HTTPConnection(place.netloc, timeout=5)
    try:
        connection.request("GET", f"{place.path}/.well-known/openid-configuration")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
