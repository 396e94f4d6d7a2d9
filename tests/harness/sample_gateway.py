"""
The sample upstream in a process of its own: `python -m tests.harness.sample_gateway`.

It tells its port on standard output. `/test/…` is for the test beside it and not of the sample.
"""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from tests.harness.openfaas import Function, SampleUpstream

USER, PASSWORD = "admin", "the-upstreams-own"


def application() -> Starlette:
    """The sample, and what a test wants to know of it."""
    sample = SampleUpstream(USER, PASSWORD, ("openfaas-fn", "dev", "staging"))

    async def state(_request: Request) -> Response:
        received = [f"{r.method} {r.target.decode('latin-1')}" for r in sample.received]
        return JSONResponse({"following": sample.following, "received": received})

    async def reset(_request: Request) -> Response:
        sample.received.clear()
        sample.functions = {("dev", "figlet"): Function({"image": "registry.example.com/figlet:0"})}
        sample.functions["dev", "figlet"].log("deployed figlet")
        sample.secrets = {("dev", "s1"): "v0"}
        sample.namespaces.pop("dev2", None)
        return Response()

    return Starlette(
        routes=[
            Route("/test/state", state),
            Route("/test/reset", reset, methods=["POST"]),
            Mount("/", sample.app),
        ]
    )


def main() -> None:
    """Serve on a free loopback port until stopped."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)  # noqa: T201  its output
    config = uvicorn.Config(application(), log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
