"""Break the issuer: it is down, slow, rotates its keys, or answers garbage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence

from faults.outcome import Outcome, Run, until
from faults.processes import Broker, running
from faults.trail import broken_promises, not_granted
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load, Sent, exchange, granted, quantiles_ms
from tests.harness.raw_server import http_answer

Answer = Callable[[str], bytes]
"""The answer to a request for a path."""


_KNOWN = "a token by a known key"
_BACK_SECONDS = 45.0
"""The broker waits 30 s before it fetches keys again after a failure."""


async def issuer_down(run: Run) -> Outcome:
    """
    The issuer refuses connections, for one broker that has its keys and for one that has none.

    Tokens signed with a known key are granted. A token signed with an unknown key is
    `keys_unavailable`, and the same token is granted once the issuer is back.
    """
    outcome = Outcome()
    async with CiIssuer().serving() as issuer:
        early = Broker(run.folder / "early", issuer.documents(fetched=True))
        late = Broker(run.folder / "late", issuer.documents(fetched=True))
        load = Load([early.port], issuer.old_token)
        async with running(early):
            await load.for_seconds(0.5)
            await issuer.down()
            async with running(late):
                issuer.rotate()
                token, first = issuer.token(), issuer.old_token()
                known = await load.for_seconds(run.of(2, 20))
                sent = [await exchange(early.port, token), await exchange(late.port, first)]
                wrong = not_granted(known, _KNOWN) + _not_unavailable(sent)
                await issuer.up()
                for broker, again in ((late, first), (early, token)):
                    seconds = await _granted_in_the_end(broker, again, load)
                    wrong += [] if seconds else [f"{broker.folder.name}: it never recovered"]
                    outcome.saw(f"{broker.folder.name}: back after {seconds or 0:.0f} s")
        load.sent += sent
        outcome.tried(wrong[:3], times=2)
        outcome.judge(broken_promises(load.sent, early, late))
    return outcome


async def issuer_slow(run: Run) -> Outcome:
    """
    The issuer answers later than the broker waits.

    Tokens signed with a known key are granted without delay. A token signed with an unknown key
    is `keys_unavailable` within the time limit of a fetch, also if many arrive at once.
    """
    outcome = Outcome()
    async with CiIssuer().serving() as issuer:
        broker = Broker(run.folder, issuer.documents(fetched=True))
        load = Load([broker.port], issuer.token)
        async with running(broker):
            await load.for_seconds(0.5)
            issuer.delay_seconds["ci"] = 30.0
            async with load.running():
                before = len(load.sent)
                asked = [issuer.token(unpublished=True) for _ in range(20)]
                unknown = await asyncio.gather(*(exchange(broker.port, t) for t in asked))
                meanwhile = load.sent[before:]
            wrong = not_granted(meanwhile, _KNOWN) + _not_unavailable(unknown)
            longest = max(sent.seconds for sent in unknown)
            wrong += [f"a caller waited {longest:.1f} s"] if longest > 8 else []
            issuer.delay_seconds.clear()
            outcome.tried(wrong[:3])
        load.sent += unknown
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(f"known keys meanwhile: {quantiles_ms(meanwhile)}; unknown after {longest:.1f} s")
    return outcome


async def issuer_rotating(run: Run) -> Outcome:
    """
    The issuer begins to sign with another key under load, up to once a minute.

    No exchange fails because of it, with the new key or with the old one.
    """
    outcome, times = Outcome(), run.of(1, 3)
    async with CiIssuer().serving() as issuer:
        broker = Broker(run.folder, issuer.documents(fetched=True))
        load = Load([broker.port], issuer.token)
        async with running(broker):
            await load.for_seconds(0.5)
            for number in range(times):
                issuer.rotate()
                sent = await load.for_seconds(2.0)
                old = [await exchange(broker.port, issuer.old_token()) for _ in range(5)]
                load.sent += old
                outcome.tried((not_granted(sent, _KNOWN) + not_granted(old, _KNOWN))[:1])
                await asyncio.sleep(61 if number < times - 1 else 0)
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(f"{len(granted(load.sent))} granted; {quantiles_ms(load.sent)}")
    return outcome


async def issuer_garbage(run: Run) -> Outcome:
    """
    The issuer answers many kinds of garbage instead of its keys.

    The known keys stay: tokens signed with them are granted, and one signed with an unknown key
    is `keys_unavailable`.
    """
    outcome = Outcome()
    async with CiIssuer().serving() as issuer:
        kinds = _garbage(issuer)
        broker = Broker(run.folder, issuer.documents(kinds, fetched=True))
        sent: list[Sent] = []
        async with running(broker):
            sent += [await exchange(broker.port, issuer.token(name)) for name in kinds]
            issuer.garbage.update(kinds)
            for name in kinds:
                unknown = await exchange(broker.port, issuer.token(name, unpublished=True))
                known = [await exchange(broker.port, issuer.token(name)) for _ in range(3)]
                sent += [unknown, *known]
                wrong = _not_unavailable([unknown]) + not_granted(known, _KNOWN)
                outcome.tried(f"{name}: {why}" for why in wrong[:1])
        outcome.judge(not_granted(sent[: len(kinds)], _KNOWN))
        outcome.judge(broken_promises(sent, broker))
    outcome.saw(", ".join(kinds))
    return outcome


def _garbage(issuer: CiIssuer) -> Mapping[str, Answer]:
    """The answers, by the name of the issuer that gives them."""
    good = json.dumps(issuer.issuer().jwks())
    discovery = '{"issuer": "%s", "jwks_uri": "%s"}'

    def keys(body: str | bytes) -> Answer:
        """Give a right discovery document, and *body* as the keys."""

        def say(path: str) -> bytes:
            iss = issuer.iss(path.split("/")[1])
            return http_answer(body if path.endswith("/jwks") else discovery % (iss, f"{iss}/jwks"))

        return say

    def always(answer: bytes) -> Answer:
        return lambda _path: answer

    elsewhere = f"Location: {issuer.iss('ci')}/jwks"
    impostor = discovery % (issuer.iss("ci"), f"{issuer.iss('ci')}/jwks")
    return {
        "nothing": always(b""),
        "html": always(http_answer("<html>Sign in</html>")),
        "error": always(http_answer("down", "500 Internal Server Error")),
        "redirect": always(http_answer("", "302 Found", elsewhere)),
        "not-http": always(b"\x00\x01\x02\x03" * 100),
        "half-an-answer": always(http_answer(good)[:-100]),
        "impostor": always(http_answer(impostor)),
        "endless": keys(b"[" * 1024 * 1024),
        "empty": keys(""),
        "no-keys": keys('{"keys": []}'),
        "not-a-key-set": keys("[]"),
        "half-json": keys(good[: len(good) // 2]),
        "not-text": keys(b"\xff\xfe\x00"),
        "key-without-kty": keys('{"keys": [{"kid": "key-0"}]}'),
    }


async def _granted_in_the_end(broker: Broker, token: str, load: Load) -> float | None:
    async def tried() -> bool:
        await asyncio.sleep(1)
        load.sent.append(await exchange(broker.port, token))
        return load.sent[-1].status == 200

    return await until(tried, _BACK_SECONDS)


def _not_unavailable(sent: Sequence[Sent]) -> list[str]:
    return [
        f"a token by an unknown key got {each.answer}"
        for each in sent
        if (each.status, each.reason) != (503, "keys_unavailable")
    ]
