"""The sample upstream with ten functions in `dev`, as a server of its own."""

from __future__ import annotations

import json
import socket
import sys

import uvicorn

from tests.harness.openfaas import Function, SampleUpstream

USER, PASSWORD = "admin", "bench"
FUNCTIONS = 10


def main() -> None:
    """Serve on a free loopback port and tell which, as the broker's log does."""
    sample = SampleUpstream(USER, PASSWORD, ["dev"])
    for number in range(FUNCTIONS):
        image = f"registry.example.com/function-{number}:1"
        sample.functions["dev", f"function-{number}"] = Function({"image": image})
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listening = {"event": "listening", "port": listener.getsockname()[1]}
    print(json.dumps(listening), file=sys.stderr, flush=True)
    config = uvicorn.Config(sample.app, log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
