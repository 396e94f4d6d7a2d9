"""Let many callers hold large bodies for the gateway's API."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

import httpx2

from faults.outcome import Outcome, Run
from faults.processes import Broker, running
from faults.trail import broken_promises, not_granted
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load
from tests.harness.raw_upstream import Answer, RawUpstream

_MIB = 1024 * 1024
_BUDGET_MIB = 32
# A body is read, parsed and written anew, but only one at a time.
_PARSING_MIB = 96
_LIVE_SECONDS = 10.0
_HELD_SECONDS = 12.0  # longer than a caller waits for room
_DEPLOYMENT = {"service": "figlet", "image": "i:1", "namespace": "dev"}
_ACCEPTED = Answer(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")


async def bodies_held(run: Run) -> Outcome:
    """
    Many callers send bodies of 9 MiB and hold the last byte back, while exchanges go on.

    Memory stays within the budget, `/livez` answers, and each caller gets 202, or 503 for want of
    room.
    """
    outcome, callers = Outcome(), run.of(20, 60)
    names = ["ci", *(f"ci-{number}" for number in range(1, callers))]
    listener = socket.create_server(("127.0.0.1", 0))
    upstream = f"http://127.0.0.1:{listener.getsockname()[1]}"
    flags = ("--upstream", upstream, "--body-budget", str(_BUDGET_MIB))
    async with (
        CiIssuer().serving() as issuer,
        RawUpstream({"": _ACCEPTED}).serving(listener),
        running(Broker(run.folder, issuer.documents(names), *flags)) as broker,
    ):
        load = Load([broker.port], issuer.token)
        tokens = [await _access_token(broker, issuer.token(name)) for name in names]
        body = json.dumps({**_DEPLOYMENT, "envProcess": "x" * 9 * _MIB}).encode()
        before, slowest, most = broker.resident_bytes(), 0.0, 0

        async def watch() -> None:
            nonlocal slowest, most
            async with httpx2.AsyncClient(timeout=60) as client:
                while True:
                    began = time.monotonic()
                    await client.get(f"http://127.0.0.1:{broker.port}/livez")
                    slowest = max(slowest, time.monotonic() - began)
                    most = max(most, broker.resident_bytes())
                    await asyncio.sleep(0.05)

        async with load.running(), _meanwhile(watch()):
            held = asyncio.Event()
            asyncio.get_running_loop().call_later(_HELD_SECONDS, held.set)
            sending = (_deploy(broker.port, token, body, held) for token in tokens)
            statuses = Counter(await asyncio.gather(*sending))
        grown = (most - before) / _MIB
        wrong = sorted(statuses.keys() - {"202", "503"})
        outcome.tried([f"{statuses[s]} callers got {s}" for s in wrong], times=callers)
        if grown > _BUDGET_MIB + _PARSING_MIB:
            outcome.judge([f"memory grew by {grown:.0f} MiB"])
        if slowest > _LIVE_SECONDS:
            outcome.judge([f"/livez took {slowest:.1f} s"])
        if not statuses["202"] or not statuses["503"]:
            outcome.judge([f"the bodies did not meet the budget: {statuses}"])
        outcome.judge(not_granted(load.sent))
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(f"{grown:.0f} MiB more, /livez in {slowest:.1f} s at most, {dict(statuses)}")
    return outcome


async def _access_token(broker: Broker, token: str) -> str:
    granted = await asyncio.to_thread(broker.exchange, token)
    return str(granted.json()["access_token"])


@asynccontextmanager
async def _meanwhile(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _deploy(port: int, token: str, body: bytes, held: asyncio.Event) -> str:
    """The status of a deployment whose last byte is sent when *held* is set."""
    head = (
        f"PUT /system/functions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body[:-1])
        await held.wait()
        writer.write(body[-1:])
        answer = await reader.readuntil(b"\r\n")
        return answer.split(b" ")[1].decode("ascii")
    except (OSError, asyncio.IncompleteReadError):
        return "no answer"
    finally:
        writer.close()
