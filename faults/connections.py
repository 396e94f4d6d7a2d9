"""Open connections that cost the broker memory, an upstream connection, or its last free place."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from faults.outcome import NotTried, Outcome, Run, until
from faults.processes import Broker, running
from faults.trail import broken_promises, not_granted
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load, quantiles_ms
from tests.harness.raw_server import http_answer, raw_server

_MIB = 1024 * 1024
_PIECE = b"x" * 65536
_READ_BYTES = 64 * 1024
_GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
_UPSTREAM_CONNECTIONS = 8
_PIPELINING, _SENT_BYTES = 60, 250_000
_HALF_HEADS = 2_400
_DESCRIPTORS = 3_000
_GROWTH_MIB = 48
"""The broker's memory may grow by so much while it is under load."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def unread_answers(run: Run) -> Outcome:
    """
    Clients hold every upstream connection with endless answers that they do not read.

    After `send-timeout` the upstream has lost all of them, and the next call is answered. A client
    that takes a byte now and then is no exception.
    """
    outcome, following = Outcome(), set[asyncio.StreamWriter]()

    async def answer(path: str, writer: asyncio.StreamWriter) -> None:
        if not path.startswith("/function/endless"):
            writer.write(http_answer("short"))
            return
        following.add(writer)
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
            while True:
                writer.write(_PIECE)
                await writer.drain()
        finally:
            following.discard(writer)

    async def has_begun() -> bool:
        return bool(following)

    async def is_free() -> bool:
        return not following and await _status(broker, "/function/short") == 200

    async with CiIssuer().serving() as issuer, raw_server(answer) as (upstream, _):
        most = ("--upstream-connections", str(_UPSTREAM_CONNECTIONS), "--upstream-timeout", "1")
        flags = ("--upstream", upstream, *most, "--send-timeout", "2s")
        broker = Broker(run.folder, issuer.documents(), *flags)
        load = Load([broker.port], issuer.token)
        async with running(broker), load.running():
            for _ in range(run.of(2, 10)):
                before, request = (
                    broker.resident_bytes(),
                    _GET.replace(b"livez", b"function/endless"),
                )
                async with _connections(broker, _UPSTREAM_CONNECTIONS, request) as made:
                    sipping = asyncio.create_task(_sip(made[0][0]))
                    held = await until(has_begun, 5)
                    took = await until(is_free, 10)
                    sipping.cancel()
                wrong = ["no answer began"] if held is None else []
                wrong += ["the upstream's connections are held"] if took is None else []
                wrong += _grew(broker, before)
                outcome.tried(wrong)
                outcome.saw(f"free after {took or 0:.1f} s")
        outcome.judge(not_granted(load.sent))
        outcome.judge(broken_promises(load.sent, broker))
    return outcome


async def pipelining(run: Run) -> Outcome:
    """
    Clients send thousands of requests ahead, and read no answer or all of them.

    Memory stays as it was. Whoever reads gets every answer, and exchanges go on.
    """
    outcome = Outcome()
    many = _SENT_BYTES // len(_GET)
    async with CiIssuer().serving() as issuer:
        broker = Broker(run.folder, issuer.documents())
        load = Load([broker.port], issuer.token)
        async with running(broker), load.running():
            for _ in range(run.of(1, 5)):
                before = broker.resident_bytes()
                async with _connections(broker, _PIPELINING, _GET * many):
                    await asyncio.sleep(3)
                    wrong = _grew(broker, before)
                    outcome.saw(f"{_growth_mib(broker, before):.0f} MiB more")
                async with _connections(broker, 1, _GET * 500) as [(reader, _)]:
                    answers = 0
                    with suppress(TimeoutError):
                        async with asyncio.timeout(20):
                            while answers < 500:
                                await reader.readuntil(b'{"status":"ok"}')
                                answers += 1
                wrong += [] if answers == 500 else [f"{500 - answers} answers were lost"]
                outcome.tried(wrong)
        outcome.judge(not_granted(load.sent))
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(quantiles_ms(load.sent))
    return outcome


async def half_heads(run: Run) -> Outcome:
    """
    More connections than the broker serves send half a head, and new ones keep coming.

    `/livez` answers all the time, and exchanges go on.
    """
    _allow_descriptors()
    outcome, slowest = Outcome(), 0.0
    async with CiIssuer().serving() as issuer:
        broker = Broker(run.folder, issuer.documents())
        load = Load([broker.port], issuer.token, clients=2)
        async with running(broker):
            before = broker.resident_bytes()
            async with (
                _connections(broker, _HALF_HEADS, b"GET /livez HTTP/1.1\r\nHo"),
                load.running(),
            ):
                for _ in range(run.of(20, 100)):
                    began = time.monotonic()
                    async with _connections(broker, 20, b"GET /"):
                        status = await _status(broker, "/livez")
                    took = time.monotonic() - began
                    slowest = max(slowest, took)
                    wrong = [] if status == 200 else [f"/livez got {status}"]
                    wrong += ["/livez took longer than 2 s"] if took > 2 else []
                    outcome.tried(wrong)
                outcome.judge(_grew(broker, before))
        outcome.judge(not_granted(load.sent))
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(f"/livez at most {1000 * slowest:.0f} ms; {quantiles_ms(load.sent)}")
    return outcome


@asynccontextmanager
async def _connections(
    broker: Broker, count: int, sending: bytes
) -> AsyncIterator[list[Connection]]:
    """Have *count* connections that begin by *sending* something, inside the `with` block."""
    made: list[Connection] = []
    try:
        for _ in range(count):
            # The reader stops reading at twice this limit.
            made.append(await asyncio.open_connection("127.0.0.1", broker.port, limit=_READ_BYTES))
            made[-1][1].write(sending)
        yield made
    finally:
        for _, writer in made:
            writer.transport.abort()


async def _sip(reader: asyncio.StreamReader) -> None:
    while True:
        await reader.readexactly(1)
        await asyncio.sleep(0.1)


async def _status(broker: Broker, path: str) -> int:
    return await asyncio.to_thread(broker.status, path)


def _growth_mib(broker: Broker, before: int) -> float:
    return (broker.resident_bytes() - before) / _MIB


def _grew(broker: Broker, before: int) -> list[str]:
    grown = _growth_mib(broker, before)
    return [f"it takes {grown:.0f} MiB more"] if grown > _GROWTH_MIB else []


def _allow_descriptors() -> None:
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now >= _DESCRIPTORS or now == resource.RLIM_INFINITY:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, most))
    except ValueError as error:
        raise NotTried(f"this process may open {most} files only") from error
