"""
Start and stop the servers of `federation demo`, on free loopback ports.

All files are in a temporary directory, which is deleted when the servers stop.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from federation.app import build
from federation.config import Settings
from federation.demo.issuer import LocalIssuer
from federation.demo.upstream import DemoGateway
from federation.outbound import Outbound

_USER = "admin"


@dataclass(frozen=True, slots=True)
class Stage:
    """The servers that are running, and their addresses."""

    issuer: LocalIssuer
    broker_url: str
    upstream_url: str
    documents: Path
    state: Path


@asynccontextmanager
async def set_stage() -> AsyncIterator[Stage]:
    """Run a CI issuer, a gateway, and a broker that trusts the issuer and protects the gateway."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="federation-demo-")))
        issuer_socket, upstream_socket, broker_socket = (
            socket.create_server(("127.0.0.1", 0)) for _ in range(3)
        )
        issuer = LocalIssuer(_url(issuer_socket))
        await stack.enter_async_context(serving(issuer.app, issuer_socket))
        documents = folder / "documents.yaml"
        documents.write_text(
            resources.files("federation.demo")
            .joinpath("documents.yaml")
            .read_text("utf-8")
            .replace("http://127.0.0.1:1", issuer.base_url)
            .replace("http://127.0.0.1:2", _url(broker_socket)),
            "utf-8",
        )
        password = secrets.token_urlsafe(16)
        upstream_secrets = folder / "upstream"
        upstream_secrets.mkdir(mode=0o700)
        (upstream_secrets / "basic-auth-user").write_text(_USER, "ascii")
        (upstream_secrets / "basic-auth-password").write_text(password, "ascii")
        gateway = DemoGateway(_USER, password)
        await stack.enter_async_context(serving(gateway.app, upstream_socket))
        settings = Settings(
            documents=(documents,),
            state=folder / "state",
            port=broker_socket.getsockname()[1],
            upstream=_url(upstream_socket),
            upstream_secrets=upstream_secrets,
        )
        app = build(settings, outbound=Outbound())  # all of it is on this machine
        await stack.enter_async_context(serving(app, broker_socket))
        yield Stage(issuer, settings.url, _url(upstream_socket), documents, settings.state)


@asynccontextmanager
async def serving(
    app: ASGIApp, listener: socket.socket, config: uvicorn.Config | None = None
) -> AsyncIterator[None]:
    """Serve *app* on *listener* inside the `with` block, with *config* if one is given."""
    server = _Server(
        config
        or uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the server stopped before it started")
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """A server that leaves signals to the program that runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"http://{host}:{port}"
