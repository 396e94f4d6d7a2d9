"""Let people without a grant flood the audit trail while its webhook is down."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence

import httpx2

from faults.outcome import Outcome, Run, until
from faults.processes import Broker, running
from faults.trail import broken_promises, not_granted, recorded
from federation.audit.segments import parts, stored
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load, exchange, exchange_request
from tests.harness.process import free_port
from tests.harness.raw_server import http_answer, raw_server
from tests.harness.webhook_receiver import receiving

_MIB = 1024 * 1024
_SIZE_MIB = 16
"""The smallest journal that there can be."""
_CLIENTS = 16
_LONG = "x" * 8000
_DEPLOYMENT = {"service": "figlet", "image": "figlet:2", "namespace": "dev"}


async def trail_flooded(run: Run) -> Outcome:
    """
    Strangers call open functions, and send invalid tokens and tokens that no Role admits, all at once.

    Grants go on. The event of a deploy stays, and reaches the webhook once that is up again.
    """
    outcome, port = Outcome(), free_port()
    async with CiIssuer().serving() as issuer, raw_server(_answer) as (upstream, _):
        flags = ("--audit-webhook", f"http://127.0.0.1:{port}/", "--audit-size", str(_SIZE_MIB))
        documents = issuer.documents()
        broker = Broker(run.folder, documents, "--upstream", upstream, *flags)
        load = Load([broker.port], issuer.token, pause_seconds=0.05)
        async with running(broker):
            deploy = await _deploy(broker, issuer.token())
            began = time.monotonic()
            async with load.running():
                answers = await _flood(broker.port, _requests(issuer), run.of(8000, 100_000))
            seconds = time.monotonic() - began
            folders = parts(broker.state / "audit")
            size = sum(segment.size for folder in folders for segment in stored(folder))
            there = {str(event["request_id"]) for event in recorded(broker.state)}
            with receiving(port) as receiver:

                async def delivered() -> bool:
                    taken = (event for each in receiver.taken for event in each.events)
                    return deploy in {str(event["request_id"]) for event in taken}

                arrived = await until(delivered, 90)
        outcome.tried(
            [
                *not_granted(load.sent),
                *broken_promises(load.sent, broker),
                *([] if deploy in there else ["the event of the deploy was displaced"]),
                *([] if arrived is not None else ["the event of the deploy never arrived"]),
                *([f"the journal has {size} bytes"] if size > _SIZE_MIB * _MIB else []),
                *(f"a stranger got {status}" for status in answers if status >= 500),
            ]
        )
    outcome.saw(
        f"{answers.total()} requests of strangers in {seconds:.0f} s, {len(load.sent)} grants,"
        f" {size / _MIB:.1f} MiB"
    )
    return outcome


async def _answer(path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(http_answer("", "202 Accepted" if path.startswith("/system") else "200 OK"))


async def _deploy(broker: Broker, token: str) -> str:
    """Deploy a function, and return the id of the request."""
    granted = await exchange(broker.port, token)
    headers = {"Authorization": f"Bearer {granted.access_token}"}
    url = f"http://127.0.0.1:{broker.port}/system/functions"
    async with httpx2.AsyncClient(timeout=30) as client:
        answer = await client.put(url, json=_DEPLOYMENT, headers=headers)
    return str(answer.raise_for_status().headers["x-request-id"])


def _requests(issuer: CiIssuer) -> Sequence[bytes]:
    """A request of each kind that anybody can send."""
    return (
        _request("POST", f"/function/figlet.dev/{_LONG}"),
        exchange_request(issuer.token(job="feature")),
        exchange_request(f"a.b.{_LONG}"),
        _request("POST", f"/system/functions/{_LONG}"),
        _request("PUT", "/system/functions", f"Authorization: Bearer {_LONG}"),
    )


def _request(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: broker", "Content-Length: 0", *headers]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


async def _flood(port: int, kinds: Sequence[bytes], count: int) -> Counter[int]:
    """Send *count* requests, all kinds in turn, and return how many got which status."""
    left, statuses = iter(range(count)), Counter[int]()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            writer.write(kinds[number % len(kinds)])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            statuses[int(head.split()[1])] += 1
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(_CLIENTS)))
    return statuses
