"""
Measure a gateway request through the broker beside the same request through oauth2-proxy.

oauth2-proxy is what people put before a gateway that knows nothing of tokens. It verifies the
signature of the caller's ID token each time, and passes the gateway's password on; it knows no
policies and writes no audit trail. It is built from the Go module proxy once, where Go is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import uvloop
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench import jobs
from bench.gateway import Pair, list_request, pair, through
from bench.paired import Side, compared
from bench.progress import say
from bench.servers import Place, on_core, running
from bench.table import Found
from tests.harness.broker import AUDIENCE
from tests.harness.gateway import PASSWORD, USER
from tests.harness.process import Server, free_port

MODULE, VERSION = "github.com/oauth2-proxy/oauth2-proxy/v7", "v7.15.6"
ROUNDS, REQUESTS = 7, 1000
NO_GO = "needs Go, once"


def measured(place: Place) -> Found:
    """Measure the processor time of both in turns, with one gateway behind both."""
    built = program()
    if built is None:
        return Found({}, {}, {"gateway_peer": NO_GO})
    with (
        pair(place.folder / "beside", place.server_core, place.client_core) as ours,
        running(Proxy(built, place.folder / "quiet", ours.upstream), place.server_core) as quiet,
        running(
            Proxy(built, place.folder / "logging", ours.upstream, logs=True), place.server_core
        ) as logging,
        on_core(place.client_core),
    ):
        return uvloop.run(_measured(quiet, logging, ours))


async def _measured(quiet: Server, logging: Server, ours: Pair) -> Found:
    id_token = jobs.ISSUER.token({**jobs.claims(0), "sub": USER, "email": f"{USER}@example.com"})
    asked = list_request(f"Bearer {id_token}"), await through(ours.broker)
    broker = Side(ours.broker, lambda count: [asked[1]] * count)
    without, with_log = [
        await compared(
            Side(server, lambda count: [asked[0]] * count), broker, rounds=ROUNDS, count=REQUESTS
        )
        for server in (quiet, logging)
    ]
    return Found(
        figures={"gateway_peer": without.ratio},
        details={
            "oauth2-proxy, µs of processor": without.first_us,
            "the broker, µs of processor": without.second_us,
            "oauth2-proxy with its log, µs of processor": with_log.first_us,
            "the broker / oauth2-proxy with its log": with_log.ratio,
        },
    )


def program() -> Path | None:
    """The program, built if it is missing; None if it cannot be built here."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home, "federation", "bench", f"oauth2-proxy-{VERSION}")
    path = folder / "oauth2-proxy"
    if path.exists():
        return path
    go = shutil.which("go")
    if go is None:
        return None
    say("building oauth2-proxy (once, 1 to 3 minutes)")
    environ = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0", "GOFLAGS": "-p=2"}
    words = [go, "install", "-trimpath", f"{MODULE}@{VERSION}"]
    done = subprocess.run(words, env=environ, check=False)  # noqa: S603  our own words
    return path if done.returncode == 0 else None


class Proxy(Server):
    """
    oauth2-proxy before *upstream*, without its log of requests unless it *logs*.

    The broker writes no line for a request that it answers, either.
    """

    def __init__(self, built: Path, folder: Path, upstream: Server, *, logs: bool = False) -> None:
        super().__init__([], folder)
        logged = "true" if logs else "false"
        key = folder / "key.pem"
        public = jobs.ISSUER.keys[0].private.public_key()
        key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        options = {
            "http-address": f"127.0.0.1:{(port := free_port())}",
            "upstream": f"{upstream.url}/",
            "provider": "oidc",
            "oidc-issuer-url": jobs.ISSUER.iss,
            "skip-oidc-discovery": "true",
            "oidc-public-key-file": key,
            # It wants these for people's sign-in, of which there is none here.
            "login-url": f"{upstream.url}/login",
            "redeem-url": f"{upstream.url}/redeem",
            "client-id": AUDIENCE,
            "client-secret": "unused",
            "cookie-secret": "0123456789abcdef",
            "email-domain": "*",
            "skip-jwt-bearer-tokens": "true",
            "basic-auth-password": PASSWORD,
            "prefer-email-to-user": "false",
            "request-logging": logged,
            "auth-logging": logged,
        }
        self.command = [str(built), *(f"--{name}={value}" for name, value in options.items())]
        self.listening = {"port": port}
        self._environ = {"GOMAXPROCS": "1"}

    def is_up(self) -> bool:
        """True once it answers."""
        return self.status("/ping") == 200
