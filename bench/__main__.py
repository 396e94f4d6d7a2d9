"""
`make bench`: the exchange against the physical limit, and the gateway's cost, in one run.

The limit of one core is a do-nothing POST through the same server, one RSA-2048 verification
and one P-256 signature. Rates differ from machine to machine; the ratio is what is compared.
All is measured in turns, round after round, so that a machine's moods reach all alike.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import uvloop
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from bench import gateway, jobs
from bench.load import Measure, run
from bench.servers import broker, cores, on_core, running

NOTHING, FEW, MANY = 0, 10, 10_000
NAMES = {NOTHING: "do-nothing", FEW: "10 Roles", MANY: "10,000 Roles"}
ROUNDS, REQUESTS, WARM_UP = 3, 1500, 300
CRYPTO_SECONDS = 0.4
RESULTS = Path("bench/results/latest.json")

Figures = dict[str, dict[str, float]]


def main() -> None:
    """Measure, print the figures, and leave them in `bench/results/latest.json`."""
    server_core, client_core = cores() or (None, None)
    say(
        "There is no second core to choose: servers and client share."
        if server_core is None
        else f"The servers share core {server_core}, the client has core {client_core}."
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ports = {
            NOTHING: stack.enter_context(running(["bench.noop"], folder / "noop", server_core))
        }
        for roles in (FEW, MANY):
            began = time.monotonic()
            started = broker(folder / str(roles), jobs.documents(roles), server_core)
            ports[roles] = stack.enter_context(started)
            say(f"A broker with {NAMES[roles]} is up after {time.monotonic() - began:.1f} s.")
        count = WARM_UP + (ROUNDS + 1) * REQUESTS
        say(f"Signing {count:,} subject tokens.")
        requests = list(jobs.requests(count))
        behind = stack.enter_context(gateway.servers(folder, server_core))
        with on_core(client_core):
            figures = uvloop.run(measured(ports, requests, server_core))
            say("A list of functions, directly and through the broker.")
            figures["gateway"] = uvloop.run(gateway.measured(behind))
    show(figures)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", "utf-8")


async def measured(
    ports: Mapping[int, int], requests: Sequence[bytes], server_core: int | None
) -> Figures:
    """The figures by group and title, each the median of its rounds."""
    for port in ports.values():
        await run(port, requests[:WARM_UP])
    fresh = [requests[at : at + REQUESTS] for at in range(WARM_UP, len(requests), REQUESTS)]
    crypto: list[tuple[float, float]] = []
    rounds: dict[int, list[Measure]] = {roles: [] for roles in ports}
    for number in range(ROUNDS):
        with on_core(server_core):
            crypto.append((seconds(verification()), seconds(signature())))
        for roles, port in ports.items():
            # The do-nothing server does not look at tokens, and is too quick to be timed by few.
            sent = [*fresh[number]] * (1 if roles else 8)
            rounds[roles].append(await run(port, sent))
        told = ", ".join(f"{NAMES[roles]} {rounds[roles][-1].rate:,.0f}/s" for roles in ports)
        say(f"Round {number + 1} of {ROUNDS}: {told}.")
    peak = {r: Measure(*map(median, zip(*rounds[r], strict=True))) for r in ports}
    verify, sign = map(median, zip(*crypto, strict=True))
    limit = 1 / (1 / peak[NOTHING].rate + verify + sign)
    figures = {
        "limit": {
            "do-nothing POST, /s": peak[NOTHING].rate,
            "RSA-2048 verify, µs": verify * 1e6,
            "P-256 sign, µs": sign * 1e6,
            "physical limit, /s": limit,
        }
    }
    for roles in (FEW, MANY):
        say(f"Half of peak, {NAMES[roles]}.")
        half = await run(ports[roles], fresh[ROUNDS], peak[roles].rate / 2)
        figures[NAMES[roles]] = {
            "exchanges, /s": peak[roles].rate,
            "of the physical limit, %": 100 * peak[roles].rate / limit,
            "cost against 10 Roles, times": peak[FEW].rate / peak[roles].rate,
            "full load p50, ms": peak[roles].p50_ms,
            "full load p99, ms": peak[roles].p99_ms,
            "half of peak p50, ms": half.p50_ms,
            "half of peak p99, ms": half.p99_ms,
        }
    return figures


def verification() -> Callable[[], None]:
    """One RSA-2048 verification of a signature over as much as a CI token holds."""
    message = os.urandom(1400)
    signed = jobs.KEY.sign(message, padding.PKCS1v15(), hashes.SHA256())
    public = jobs.KEY.public_key()
    return lambda: public.verify(signed, message, padding.PKCS1v15(), hashes.SHA256())


def signature() -> Callable[[], bytes]:
    """One P-256 signature over as much as an access token holds."""
    key, message = ec.generate_private_key(ec.SECP256R1()), os.urandom(1600)
    return lambda: key.sign(message, ec.ECDSA(hashes.SHA256()))


def seconds(work: Callable[[], object]) -> float:
    """How long *work* takes."""
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < CRYPTO_SECONDS:
        work()
        done += 1
    return spent / done


def show(figures: Figures) -> None:
    """The figures for a person: the limit, then one column a broker."""
    print(f"\nPython {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n")
    for title, figure in figures["limit"].items():
        print(f"{title:<32}{figure:>14,.1f}")
    columns = [NAMES[FEW], NAMES[MANY]]
    print("\n" + " " * 32 + "".join(f"{name:>14}" for name in columns))
    for title in figures[NAMES[FEW]]:
        print(f"{title:<32}" + "".join(f"{figures[name][title]:>14,.2f}" for name in columns))
    print("\nGET /system/functions")
    for title, figure in figures["gateway"].items():
        print(f"{title:<32}{figure:>14,.2f}")
    print(f"\nwritten to {RESULTS}")


def say(what: str) -> None:
    """Progress, at once."""
    print(what, flush=True)


if __name__ == "__main__":
    main()
