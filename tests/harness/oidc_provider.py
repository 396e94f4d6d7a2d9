"""
A certified OpenID provider on loopback: the npm package `oidc-provider`, which starts in a second.

Its program is `tests/end_to_end/sign_on/provider.mjs`. Unlike Keycloak's, its refresh tokens want
the scope `offline_access` with `prompt=consent`, its access tokens are opaque, and the claim
`groups` is a scope of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.harness import sign_on_programs
from tests.harness.process import Process, free_port
from tests.harness.sign_on_parts import (
    CLI,
    CONFIDENTIAL,
    DASHBOARD,
    IMPLICIT,
    MARKUP,
    ROBOT,
    SECRETS,
    Object,
    Ports,
    publishes_metadata,
)

_DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_PEOPLE: Object = {
    "alice": {
        "name": "Alice Example",
        "email": "alice@example.com",
        "email_verified": True,
        "groups": ["dev", "platform/operators"],
    },
    "bob": {
        "name": "Bob Example",
        "email": "bob@example.com",
        "email_verified": False,
        "groups": ["readers"],
    },
    "mallory": {
        "name": MARKUP,
        "email": "mallory@example.com",
        "email_verified": False,
        "groups": [f'">{MARKUP}'],
    },
}


class OidcProvider(Process):
    """
    An OpenID provider. The claim `sub` of a person is the name, and any password is right.

    The claims of scopes stand in the ID token, or, where *claims_in_id_token* is False, only in
    the answer of the userinfo endpoint. *more_clients* are metadata of clients as in RFC 7591.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports | None = None,
        *,
        claims_in_id_token: bool = True,
        more_clients: Sequence[Object] = (),
    ) -> None:
        self.ports = ports or Ports()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.issuer = self.url
        """The claim `iss` of its tokens."""
        program, options = folder / "provider.mjs", folder / "options.json"
        super().__init__([str(sign_on_programs.node()), str(program), str(options)], folder)
        # A module finds what it imports beside itself.
        shutil.copy(sign_on_programs.SOURCE / "provider.mjs", program)
        (folder / "node_modules").symlink_to(sign_on_programs.node_modules())
        content = {
            "port": self.port,
            "clients": [*_clients(self.ports), *more_clients],
            "people": _PEOPLE,
            "claims_in_id_token": claims_in_id_token,
        }
        options.write_text(json.dumps(content), "utf-8")

    def is_up(self) -> bool:
        """True if it answers with its metadata."""
        return publishes_metadata(self.issuer)


def _clients(ports: Ports) -> list[Object]:
    redirects = [
        f"http://{host}:{port}/oauth/callback"
        for port in (ports.callback, 31111)
        for host in ("127.0.0.1", "localhost", "[::1]")
    ]
    native: Object = {"application_type": "native", "token_endpoint_auth_method": "none"}
    dashboards = (f"http://127.0.0.1:{ports.dashboard}", ports.dashboard_url)
    return [
        {
            "client_id": CLI,
            **native,
            "redirect_uris": redirects,
            "grant_types": ["authorization_code", "refresh_token", _DEVICE_CODE],
            "response_types": ["code"],
        },
        {
            "client_id": CONFIDENTIAL,
            "client_secret": SECRETS[CONFIDENTIAL],
            "application_type": "native",
            "redirect_uris": redirects,
            "grant_types": ["authorization_code", "refresh_token", _DEVICE_CODE],
            "response_types": ["code"],
        },
        {
            "client_id": IMPLICIT,
            **native,
            "redirect_uris": redirects,
            "grant_types": ["implicit"],
            "response_types": ["id_token"],
        },
        {
            "client_id": DASHBOARD,
            "client_secret": SECRETS[DASHBOARD],
            "redirect_uris": [f"{url}/auth/callback" for url in dashboards],
            "post_logout_redirect_uris": [f"{url}/auth/signed-out" for url in dashboards],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "backchannel_logout_uri": f"{dashboards[0]}/auth/backchannel-logout",
            "backchannel_logout_session_required": True,
        },
        {
            "client_id": ROBOT,
            "client_secret": SECRETS[ROBOT],
            "redirect_uris": [],
            "grant_types": ["client_credentials"],
            "response_types": [],
        },
    ]


@contextmanager
def oidc_provider_running(
    folder: Path,
    ports: Ports | None = None,
    *,
    claims_in_id_token: bool = True,
    more_clients: Sequence[Object] = (),
) -> Iterator[OidcProvider]:
    """Run an OpenID provider of one's own inside the `with` block."""
    sign_on_programs.need("oidc-provider")
    provider = OidcProvider(
        folder, ports, claims_in_id_token=claims_in_id_token, more_clients=more_clients
    )
    with provider.running():
        yield provider
