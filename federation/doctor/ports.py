"""
The broker's ports: free, or taken by a broker that runs, or by another program.

A broker that runs is asked how it is. It tells details to a connection from loopback.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any

from federation.config import Settings
from federation.doctor.finding import Finding, fail, ok, split, warn
from federation.errors import SettingsRefused
from federation.server.listener import listen
from federation.text import counted, host_and_port

_ASK_SECONDS = 2.0
_ANSWER_BYTES = 256 * 1024


async def ports(settings: Settings) -> list[Finding]:
    """Say whether the broker's ports are free, or who answers there."""
    found = [*await _port("port", settings.host, settings.port)]
    if settings.metrics_port is not None:
        host = settings.metrics_host or settings.host
        found += await _port("metrics port", host, settings.metrics_port)
    return found


async def _port(check: str, host: str, port: int) -> list[Finding]:
    try:
        listen(host, port).close()
    except SettingsRefused as refused:
        if getattr(refused.__cause__, "errno", None) == errno.EADDRINUSE:
            return await asyncio.to_thread(_who_answers, check, host, port)
        return [fail(check, *split(str(refused), _port_advice(refused.__cause__)))]
    return [ok(check, f"{host_and_port(host, port)} is free" if port else "any that is free")]


def _port_advice(error: BaseException | None) -> str:
    match getattr(error, "errno", None):
        case errno.EACCES:
            return "choose a port of 1024 or above, or grant the capability net_bind_service"
        case errno.EADDRNOTAVAIL:
            return "no interface of this machine has that address; set --host to one that it has"
    return "correct --host and --port"


def _who_answers(check: str, host: str, port: int) -> list[Finding]:
    """Ask who has the port. A broker that runs says how it is."""
    at = host_and_port(host, port)
    status, said = _ask(host, port, "/readyz")
    # Whatever runs there may answer with any JSON.
    if said.get("status") not in ("ok", "degraded", "unavailable"):
        return [
            fail(
                check,
                f"{at} is taken by another program",
                f"see which: ss -ltnp 'sport = :{port}'; or choose another port",
            )
        ]
    if status == http.client.OK and said["status"] == "ok":
        return [ok(check, f"a broker runs at {at} and says that it is ready")]
    problems = list(_problems(said))
    more = f", and {counted(len(problems) - 1, 'other thing')}" if len(problems) > 1 else ""
    first = f": {problems[0]}{more}" if problems else ""
    told = f"the broker that runs at {at} is {said['status']}{first}"
    advice = f"curl http://{_local(host, port)}/readyz names everything"
    return [(warn if status == http.client.OK else fail)(check, told, advice)]


def _problems(said: Mapping[str, Any]) -> Iterator[str]:
    # The metrics port of several workers has a report for each.
    workers = said.get("workers")
    for report in (said, *(workers.values() if isinstance(workers, dict) else ())):
        for kind in ("unavailable", "degraded"):
            found = report.get(kind) if isinstance(report, dict) else None
            yield from map(str, found if isinstance(found, list) else ())


def _ask(host: str, port: int, path: str) -> tuple[int, Mapping[str, Any]]:
    """Return status and members of the JSON at *path*, 0 and nothing if there is none."""
    connection = http.client.HTTPConnection(_reached(host), port, timeout=_ASK_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        said = json.loads(answer.read(_ANSWER_BYTES))
    except (OSError, ValueError, http.client.HTTPException, RecursionError):
        return 0, {}
    finally:
        connection.close()
    return answer.status, said if isinstance(said, dict) else {}


def _reached(host: str) -> str:
    """Return an address by which this machine reaches a server that listens on *host*."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104


def _local(host: str, port: int) -> str:
    return host_and_port(_reached(host), port)
