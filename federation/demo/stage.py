"""
The stage that `federation demo` plays on: real servers on free loopback ports.

Everything is started on entering and stopped on leaving, and nothing is kept but what lies in
a temporary directory that goes too.
"""

from __future__ import annotations

import asyncio
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

__all__ = ["Stage", "serving", "set_stage"]


@dataclass(frozen=True, slots=True)
class Stage:
    """What is up, and where."""

    issuer: LocalIssuer
    broker_url: str
    documents: Path


@asynccontextmanager
async def set_stage() -> AsyncIterator[Stage]:
    """A local CI issuer, and a broker that trusts it by the sample documents."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="federation-demo-")))
        issuer_socket, broker_socket = _free_port(), _free_port()
        issuer = LocalIssuer(_url(issuer_socket))
        await stack.enter_async_context(serving(issuer.app, issuer_socket))
        documents = folder / "documents.yaml"
        documents.write_text(
            _sample_documents()
            .replace("http://127.0.0.1:1", issuer.base_url)
            .replace("http://127.0.0.1:2", _url(broker_socket)),
            "utf-8",
        )
        settings = Settings(
            documents=(documents,),
            state=folder / "state",
            port=broker_socket.getsockname()[1],
        )
        await stack.enter_async_context(serving(build(settings), broker_socket))
        yield Stage(issuer, settings.url, documents)


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """*app* answers on *listener* within."""
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = _Server(config)
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
    """Leaves signals to the program around it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _sample_documents() -> str:
    return resources.files("federation.demo").joinpath("documents.yaml").read_text("utf-8")


def _free_port() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"http://{host}:{port}"
