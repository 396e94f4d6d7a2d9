"""The key ring: good keys outlive bad answers, and an issuer is never flooded."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest

from federation.documents.model import JwtIssuer
from federation.errors import Reason, Refusal
from federation.issuers.fetch import MAX_RESPONSE_BYTES
from federation.issuers.key_ring import KeyRing
from federation.jose.jwk import MAX_KEYS, Key, KeySet, parse_key_set
from federation.providers.table import PROFILES
from tests.harness.broker import logged
from tests.harness.builders import GENERIC, GITHUB, GITLAB, issuer
from tests.harness.clock import Clock
from tests.harness.issuer import (
    Answer,
    FakeIssuer,
    FakeKey,
    answering,
    base64url,
    private_key,
)

MINUTE, HOUR = 60.0, 3600.0
NEW = FakeKey("k2", which=1)
T = TypeVar("T")


class Setting:
    """A ring, its clock and the one issuer that it can reach."""

    def __init__(self, fake: FakeIssuer | None = None, **changes: Any) -> None:
        self.fake = fake or FakeIssuer()
        self.issuer: JwtIssuer = issuer(self.fake.iss, **changes)
        self.clock = Clock()
        self.ring = KeyRing(self.fake.connect, self.clock, jitter=lambda: 0.5, fetch_seconds=0.2)

    async def key(self, kid: str | None = "k1", alg: str = "RS256") -> Key:
        return await self.ring.key(self.issuer, kid, alg)

    async def reason(self, kid: str | None = "k1", alg: str = "RS256") -> Reason | None:
        """The reason why the ring does not give this key, None if it does."""
        try:
            await self.key(kid, alg)
        except Refusal as refusal:
            return refusal.reason
        return None

    def hold_discovery(self) -> asyncio.Event:
        """Let the issuer answer discovery once the event that is returned is set."""
        release = asyncio.Event()

        async def when_released(request: httpx2.Request) -> httpx2.Response:
            await release.wait()
            return await self.fake.good_discovery(request)

        self.fake.discovery = when_released
        return release

    @property
    def failure(self) -> str:
        return self.ring.status()[self.issuer.iss].failure


def run(setting: Setting, story: Callable[[], Awaitable[T]]) -> T:
    async def whole() -> T:
        try:
            return await story()
        finally:
            await setting.ring.aclose()

    return asyncio.run(whole())


# What is fetched, and from where


def test_keys_are_found_by_discovery_and_then_held() -> None:
    s = Setting()

    async def story() -> None:
        assert (await s.key()).kid == "k1"
        assert (await s.key()).kid == "k1"

    run(s, story)
    assert s.fake.requests == [
        f"{GITHUB}/.well-known/openid-configuration",
        f"{GITHUB}/.well-known/jwks",
    ]
    assert {request.headers["accept-encoding"] for request in s.fake.seen} == {"identity"}
    assert all("application/jwk-set+json" in request.headers["accept"] for request in s.fake.seen)


@pytest.mark.parametrize(
    ("iss", "changes", "jwks_uri", "requests"),
    [
        pytest.param(
            f"{GITHUB}/octo",
            {},
            f"{GITHUB}/octo/jwks",
            [f"{GITHUB}/octo/.well-known/openid-configuration", f"{GITHUB}/octo/jwks"],
            id="an iss with a path",
        ),
        pytest.param(
            "https://ids.example/",
            {},
            "https://ids.example:443/keys",
            ["https://ids.example/.well-known/openid-configuration", "https://ids.example/keys"],
            id="an iss with a slash at its end, a default port written out",
        ),
        pytest.param(
            GITLAB,
            {"jwks_uri": "https://keys.example/set"},
            "unused",
            ["https://keys.example/set"],
            id="jwksUri skips discovery",
        ),
        pytest.param(
            "https://sso.example/realms/octo",
            {"internal_url": "http://sso.svc:8080/realms/octo"},
            "https://sso.example/realms/octo/certs",
            [
                "http://sso.svc:8080/realms/octo/.well-known/openid-configuration",
                "http://sso.svc:8080/realms/octo/certs",
            ],
            id="issInternal moves a jwks_uri under iss inside",
        ),
        pytest.param(
            "https://sso.example/realms/octo",
            {"internal_url": "http://sso.svc:8080/realms/octo"},
            "https://sso.example/certs?all=1",
            [
                "http://sso.svc:8080/realms/octo/.well-known/openid-configuration",
                "http://sso.svc:8080/certs?all=1",
            ],
            id="issInternal moves a jwks_uri beside iss inside",
        ),
        pytest.param(
            "https://sso.example",
            {"internal_url": "http://sso.svc:8080"},
            "http://sso.svc:8080/certs",
            [
                "http://sso.svc:8080/.well-known/openid-configuration",
                "http://sso.svc:8080/certs",
            ],
            id="issInternal may name itself",
        ),
        pytest.param(
            "https://sso.example",
            {"internal_url": "http://sso.svc:8080/.well-known/openid-configuration"},
            "http://sso.svc:8080/certs",
            [
                "http://sso.svc:8080/.well-known/openid-configuration",
                "http://sso.svc:8080/certs",
            ],
            id="issInternal as the whole path",
        ),
        pytest.param(
            "http://127.0.0.1:9000",
            {},
            "http://127.0.0.1:9000/keys",
            [
                "http://127.0.0.1:9000/.well-known/openid-configuration",
                "http://127.0.0.1:9000/keys",
            ],
            id="http on loopback",
        ),
    ],
)
def test_keys_are_fetched_where_the_document_says(
    iss: str, changes: dict[str, Any], jwks_uri: str, requests: list[str]
) -> None:
    fake = FakeIssuer(iss)
    fake.jwks_uri = jwks_uri
    s = Setting(fake, **changes)
    assert run(s, s.reason) is None
    assert fake.requests == requests


def test_nothing_is_fetched_for_pinned_keys() -> None:
    fake = FakeIssuer()
    s = Setting(fake, jwks=fake.jwks())

    async def story() -> None:
        assert (await s.key()).kid == "k1"
        s.clock.advance(48 * HOUR)
        await s.ring.refresh_due([s.issuer])
        assert (await s.key()).kid == "k1"
        assert await s.reason("other") is Reason.UNKNOWN_KEY

    run(s, story)
    assert fake.requests == []


def test_an_empty_pinned_set_knows_no_key_and_says_so() -> None:
    s = Setting(jwks={"keys": []})
    assert run(s, s.reason) is Reason.UNKNOWN_KEY
    assert "empty" in s.failure
    assert s.fake.requests == []


# Bad answers


def discovery(**changes: object) -> Answer:
    document = {"issuer": GITHUB, "jwks_uri": f"{GITHUB}/jwks", **changes}
    return answering(json={name: value for name, value in document.items() if value is not None})


def streamed(chunk: bytes, chunks: int, **headers: str) -> tuple[Answer, list[int]]:
    """An answer that counts how many chunks of it were taken."""
    taken: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        for number in range(chunks):
            taken.append(number)
            yield chunk

    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers=headers, content=body())

    return answer, taken


async def slow(_request: httpx2.Request) -> httpx2.Response:
    await asyncio.sleep(30)
    raise AssertionError("the key ring must not wait this long")


async def broken(_request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused")


BOMB = gzip.compress(b" " * (8 * 1024 * 1024))
KEYS = {"keys": [FakeKey().jwk()]}
REDIRECT = answering(302, headers={"Location": f"{GITHUB}/elsewhere"}, json=KEYS)

FAULTS: dict[str, tuple[str, Answer, str]] = {
    "discovery of another issuer": ("discovery", discovery(issuer=GITLAB), "names the issuer"),
    "discovery with a slash more": ("discovery", discovery(issuer=f"{GITHUB}/"), "names the issu"),
    "discovery in another case": ("discovery", discovery(issuer=GITHUB.upper()), "names the issu"),
    "discovery without issuer": ("discovery", discovery(issuer=None), "names the issuer"),
    "discovery with issuers": ("discovery", discovery(issuer=[GITHUB]), "names the issuer"),
    "discovery without jwks_uri": ("discovery", discovery(jwks_uri=None), "names no jwks_uri"),
    "discovery with odd jwks_uri": ("discovery", discovery(jwks_uri=[]), "names no jwks_uri"),
    "endless jwks_uri": (
        "discovery",
        discovery(jwks_uri=f"{GITHUB}/{'a' * 3000}"),
        "names no jwks_uri",
    ),
    "jwks_uri on another host": (
        "discovery",
        discovery(jwks_uri="https://evil.example/jwks"),
        "set jwksUri",
    ),
    "jwks_uri on the cloud's own address": (
        "discovery",
        discovery(jwks_uri="http://169.254.169.254/latest"),
        "another origin",
    ),
    "jwks_uri on another port": ("discovery", discovery(jwks_uri=f"{GITHUB}:8443/"), "another or"),
    "jwks_uri over http": (
        "discovery",
        discovery(jwks_uri=GITHUB.replace("https", "http") + "/jwks"),
        "another origin",
    ),
    "jwks_uri of a file": ("discovery", discovery(jwks_uri="file:///etc/keys"), "another origin"),
    "jwks_uri without host": ("discovery", discovery(jwks_uri="/jwks"), "another origin"),
    "jwks_uri with our host as user": (
        "discovery",
        discovery(jwks_uri=f"{GITHUB}@evil.example/jwks"),
        "has a user",
    ),
    "jwks_uri with our host as prefix": (
        "discovery",
        discovery(jwks_uri=f"{GITHUB}.evil.example/jwks"),
        "another origin",
    ),
    "jwks_uri with a backslash": (
        "discovery",
        discovery(jwks_uri="https://evil.example\\@token.actions.githubusercontent.com/jwks"),
        "",
    ),
    "jwks_uri with a newline": ("discovery", discovery(jwks_uri=f"{GITHUB}/a\nb"), "is no address"),
    "discovery not found": ("discovery", answering(404), "answered 404"),
    "discovery is a page": ("discovery", answering(text="<html>"), "not a discovery document"),
    "discovery is a list": ("discovery", answering(json=[]), "not a discovery document"),
    "slow discovery": ("discovery", slow, "within 0.2 s"),
    "key set not found": ("key_set", answering(404, json=KEYS), "answered 404"),
    "key set fails": ("key_set", answering(500, json=KEYS), "answered 500"),
    "key set created": ("key_set", answering(201, json=KEYS), "answered 201"),
    "key set redirected": ("key_set", REDIRECT, "answered 302"),
    "key set is empty": ("key_set", answering(json={"keys": []}), "an empty one"),
    "key set is nothing": ("key_set", answering(content=b""), "not a key set"),
    "key set without keys": ("key_set", answering(json={}), "no list of keys"),
    "keys are no list": ("key_set", answering(json={"keys": {"k1": 1}}), "no list of keys"),
    "key set is cut off": ("key_set", answering(content=b'{"keys":[{"kty":'), "not a key set"),
    "key set with keys twice": (
        "key_set",
        answering(content=b'{"keys":[],"keys":[1]}'),
        "stands twice",
    ),
    "key set nested beyond reason": ("key_set", answering(content=b"[" * 200_000), "too deeply"),
    "key set with an endless number": (
        "key_set",
        answering(content=b'{"keys":' + b"9" * 200_000 + b"}"),
        "too long",
    ),
    "only keys that are none": (
        "key_set",
        answering(json={"keys": [7, {}, {"kty": "oct", "k": "AAAA"}]}),
        "none of the keys can be used",
    ),
    "compressed bomb": (
        "key_set",
        streamed(BOMB, 1, **{"Content-Encoding": "gzip"})[0],
        "answered compressed",
    ),
    "key set too large": ("key_set", streamed(b" " * 65536, 1000)[0], "more than"),
    "slow key set": ("key_set", slow, "within 0.2 s"),
    "no connection": ("key_set", broken, "no connection"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_answer_gives_no_keys_and_the_status_says_why(fault: str) -> None:
    place, answer, why = FAULTS[fault]
    s = Setting()
    setattr(s.fake, place, answer)
    assert run(s, s.reason) is Reason.KEYS_UNAVAILABLE
    assert why in s.failure
    assert all(url.startswith(GITHUB + "/") for url in s.fake.requests)
    assert not any("elsewhere" in url for url in s.fake.requests)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_answer_replaces_no_good_keys(fault: str) -> None:
    place, answer, why = FAULTS[fault]
    s = Setting()

    async def story() -> None:
        await s.key()
        setattr(s.fake, place, answer)
        s.clock.advance(11 * MINUTE)
        await s.ring.refresh_due([s.issuer])
        assert why in s.failure
        assert (await s.key()).kid == "k1"

    run(s, story)


def test_reading_stops_when_an_answer_is_too_large() -> None:
    s = Setting()
    s.fake.key_set, taken = streamed(b" " * 65536, 1000)
    assert run(s, s.reason) is Reason.KEYS_UNAVAILABLE
    assert len(taken) == MAX_RESPONSE_BYTES // 65536 + 1


def test_discovery_and_key_set_share_one_time_limit() -> None:
    s = Setting()

    def late(answer: Answer) -> Answer:
        async def after_a_while(request: httpx2.Request) -> httpx2.Response:
            await asyncio.sleep(0.12)
            return await answer(request)

        return after_a_while

    s.fake.discovery = late(s.fake.discovery)
    assert run(s, s.reason) is None
    s = Setting()
    s.fake.discovery, s.fake.key_set = late(s.fake.discovery), late(s.fake.key_set)
    assert run(s, s.reason) is Reason.KEYS_UNAVAILABLE


def test_a_ca_bundle_without_a_certificate_gives_no_keys() -> None:
    ring = KeyRing()

    async def story() -> None:
        with pytest.raises(Refusal) as caught:
            await ring.key(issuer(GITHUB, ca_bundle="no certificate"), "k1", "RS256")
        assert caught.value.reason is Reason.KEYS_UNAVAILABLE
        await ring.aclose()

    asyncio.run(story())


# Rotation, floods, outages


def test_rotation_costs_one_refetch_then_waits_out_the_cooldown() -> None:
    s = Setting()

    async def story() -> None:
        await s.key()
        s.fake.keys = (NEW,)
        assert (await s.key("k2")).kid == "k2"
        assert s.fake.fetches == 2
        s.fake.keys = (FakeKey("k3", which=2),)
        assert await s.reason("k3") is None, "a kid that was found leaves no pause"
        assert s.fake.fetches == 3
        assert await s.reason("k4") is Reason.UNKNOWN_KEY
        assert s.fake.fetches == 4
        s.fake.keys = (FakeKey("k5", which=3),)
        s.clock.advance(9.9)
        assert await s.reason("k5") is Reason.UNKNOWN_KEY
        assert s.fake.fetches == 4
        s.clock.advance(0.1)
        assert await s.reason("k5") is None
        assert s.fake.fetches == 5

    run(s, story)


def test_a_key_that_the_issuer_withdraws_is_forgotten_at_the_next_refresh() -> None:
    s = Setting(FakeIssuer(GITHUB, FakeKey(), NEW))

    async def story() -> None:
        await s.key("k1")
        s.fake.keys = (NEW,)
        assert await s.reason("k1") is None
        s.clock.advance(10 * MINUTE)
        await s.ring.refresh_due([s.issuer])
        assert await s.reason("k2") is None
        assert await s.reason("k1") is Reason.UNKNOWN_KEY

    run(s, story)


@pytest.mark.parametrize("known_before", [True, False])
def test_a_thousand_unknown_kids_are_one_fetch(*, known_before: bool) -> None:
    s = Setting()

    async def story() -> None:
        if known_before:
            await s.key()
        before = s.fake.fetches
        together = await asyncio.gather(*(s.reason(f"random-{n}") for n in range(500)))
        one_by_one = [await s.reason(f"random-{n}") for n in range(500, 1000)]
        assert {*together, *one_by_one} == {Reason.UNKNOWN_KEY}
        assert s.fake.fetches == before + 1
        assert await s.reason() is None

    run(s, story)


def test_with_no_keys_a_failed_fetch_is_tried_again_after_five_seconds_at_the_earliest() -> None:
    s = Setting()
    s.fake.key_set = answering(503)

    async def story() -> None:
        assert await s.reason() is Reason.KEYS_UNAVAILABLE
        s.clock.advance(4.9)
        reasons = await asyncio.gather(*(s.reason(f"k{n}") for n in range(100)))
        assert set(reasons) == {Reason.KEYS_UNAVAILABLE}
        assert s.fake.fetches == 1
        s.fake.key_set = s.fake.good_key_set
        s.clock.advance(0.1)
        assert await s.reason() is None
        assert s.fake.fetches == 2

    run(s, story)


def test_the_pause_after_a_slow_failure_counts_from_its_end() -> None:
    s = Setting()

    async def fails_late(_request: httpx2.Request) -> httpx2.Response:
        s.clock.advance(5)
        return httpx2.Response(500)

    s.fake.discovery = fails_late

    async def story() -> None:
        assert await s.reason() is Reason.KEYS_UNAVAILABLE
        assert await s.reason() is Reason.KEYS_UNAVAILABLE
        assert len(s.fake.requests) == 1

    run(s, story)


def test_in_an_outage_known_keys_serve_for_a_day_and_then_no_longer() -> None:
    s = Setting()

    async def story() -> None:
        await s.key()
        s.fake.discovery = broken
        for _ in range(23):
            s.clock.advance(HOUR)
            await s.ring.refresh_due([s.issuer])
            assert await s.reason() is None
        s.clock.advance(HOUR)
        assert await s.reason() is Reason.KEYS_UNAVAILABLE
        assert s.ring.status()[GITHUB].keys == 0
        s.fake.discovery = s.fake.good_discovery
        s.clock.advance(5)
        assert await s.reason() is None

    run(s, story)


def test_in_an_outage_an_unknown_kid_is_a_temporary_refusal() -> None:
    s = Setting()

    async def story() -> None:
        await s.key()
        s.fake.discovery = broken
        assert await s.reason("k2") is Reason.KEYS_UNAVAILABLE
        assert await s.reason("k2") is Reason.KEYS_UNAVAILABLE
        assert len(s.fake.requests) == 3, "and is not asked about again at once"
        assert await s.reason("k1") is None

    run(s, story)


# Sharing


def test_callers_share_one_fetch() -> None:
    s = Setting()
    release = s.hold_discovery()

    async def story() -> None:
        callers = [asyncio.create_task(s.key()) for _ in range(20)]
        await asyncio.sleep(0.01)
        release.set()
        assert {key.kid for key in await asyncio.gather(*callers)} == {"k1"}
        assert len(s.fake.requests) == 2

    run(s, story)


def test_a_caller_that_gives_up_does_not_end_the_fetch_for_others() -> None:
    s = Setting()
    release = s.hold_discovery()

    async def story() -> None:
        first, second = (asyncio.create_task(s.key()) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        assert first.cancelled()
        release.set()
        assert (await second).kid == "k1"
        assert len(s.fake.requests) == 2

    run(s, story)


def test_a_fetch_that_began_before_a_rotation_does_not_use_up_the_refetch() -> None:
    s = Setting()
    release = asyncio.Event()

    async def old_keys_late(_request: httpx2.Request) -> httpx2.Response:
        old = s.fake.jwks()
        await release.wait()
        s.fake.key_set = s.fake.good_key_set
        return httpx2.Response(200, json=old)

    async def story() -> None:
        await s.key()
        s.clock.advance(11 * MINUTE)
        s.fake.key_set = old_keys_late
        refresh = asyncio.create_task(s.ring.refresh_due([s.issuer]))
        await asyncio.sleep(0.01)
        s.fake.keys = (NEW,)
        callers = [asyncio.create_task(s.key("k2")) for _ in range(3)]
        await asyncio.sleep(0.01)
        release.set()
        assert {key.kid for key in await asyncio.gather(*callers)} == {"k2"}
        await refresh
        assert s.fake.fetches == 3

    run(s, story)


def test_a_request_never_waits_for_a_refresh() -> None:
    s = Setting()

    async def story() -> None:
        await s.key()
        s.clock.advance(11 * MINUTE)
        s.fake.discovery = slow
        refresh = asyncio.create_task(s.ring.refresh_due([s.issuer]))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(0.05):
            assert (await s.key()).kid == "k1"
        await refresh

    run(s, story)


# In the background


def test_keys_are_fetched_before_the_first_token_and_again_before_they_age() -> None:
    s = Setting()

    async def story() -> None:
        loop = asyncio.create_task(s.ring.refresh(lambda: [s.issuer]))
        await asyncio.sleep(0.05)
        loop.cancel()
        await s.ring.refresh_due([s.issuer])
        assert s.fake.fetches == 1
        s.clock.advance(9 * MINUTE)
        await s.ring.refresh_due([s.issuer])
        assert s.fake.fetches == 1
        s.clock.advance(MINUTE)
        await s.ring.refresh_due([s.issuer])
        assert s.fake.fetches == 2
        assert await s.reason() is None
        assert s.fake.fetches == 2

    run(s, story)


def test_a_refresh_joins_the_fetch_that_a_request_began() -> None:
    s = Setting()
    release = s.hold_discovery()

    async def story() -> None:
        caller = asyncio.create_task(s.key())
        await asyncio.sleep(0.01)
        refresh = asyncio.create_task(s.ring.refresh_due([s.issuer]))
        await asyncio.sleep(0.01)
        release.set()
        await asyncio.gather(caller, refresh)
        assert len(s.fake.requests) == 2

    run(s, story)


def test_many_issuers_that_hang_are_asked_few_at_once_and_after_those_that_answer() -> None:
    s = Setting()
    at_once, most, asked = 0, 0, list[str]()

    async def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal at_once, most
        asked.append(request.url.host)
        if "hangs" not in request.url.host:
            return await s.fake.answer(request)
        at_once += 1
        most = max(most, at_once)
        try:
            await asyncio.sleep(60)
        finally:
            at_once -= 1
        raise AssertionError("it hangs for longer than a fetch may take")

    transport = httpx2.MockTransport(answer)
    s.ring = KeyRing(lambda _: httpx2.AsyncClient(transport=transport), s.clock, fetch_seconds=0.02)
    hanging = [issuer(f"https://hangs-{number}.example") for number in range(100)]

    async def story() -> None:
        await s.ring.refresh_due([*hanging, s.issuer])
        assert most == 16
        s.clock.advance(HOUR)
        asked.clear()
        await s.ring.refresh_due([*hanging, s.issuer])
        assert "hangs" not in asked[0]
        assert len(asked) == len(hanging) + 2

    run(s, story)


def test_after_a_change_of_the_key_location_the_old_keys_are_forgotten(tmp_path: Path) -> None:
    s = Setting()
    token = tmp_path / "token"
    token.write_text("abc")

    async def story() -> None:
        await s.key()
        same = replace(s.issuer, token_expiry=s.issuer.token_expiry * 2)
        await s.ring.key(same, "k1", "RS256")
        assert s.fake.fetches == 1, "other fields make no difference"
        for changes in (
            {"jwks_uri": f"{GITHUB}/other"},
            {"internal_url": "https://inside.example"},
            {"ca_bundle": "another"},
            {"bearer_token_file": str(token)},
        ):
            before = s.fake.fetches
            changed = replace(s.issuer, **changes)  # type: ignore[arg-type]  # a table of fields
            await s.ring.key(changed, "k1", "RS256")
            assert s.fake.fetches == before + 1
        pinned = replace(s.issuer, jwks={"keys": [NEW.jwk()]})
        with pytest.raises(Refusal):
            await s.ring.key(pinned, "k1", "RS256")

    run(s, story)


def test_the_keys_of_a_removed_issuer_are_forgotten() -> None:
    s = Setting()

    async def story() -> None:
        await s.ring.refresh_due([s.issuer])
        await s.ring.refresh_due([])
        assert s.ring.status() == {}
        await s.key()
        assert s.fake.fetches == 2

    run(s, story)


def test_removing_an_issuer_cancels_its_fetch() -> None:
    s = Setting()
    s.fake.discovery = slow

    async def story() -> None:
        caller = asyncio.create_task(s.reason())
        await asyncio.sleep(0.01)
        await s.ring.refresh_due([])
        async with asyncio.timeout(0.1):
            assert await caller is Reason.KEYS_UNAVAILABLE

    run(s, story)


def test_closing_the_ring_cancels_running_fetches() -> None:
    s = Setting()
    s.fake.discovery = slow

    async def story() -> None:
        caller = asyncio.create_task(s.reason())
        await asyncio.sleep(0.01)
        await s.ring.aclose()
        assert await caller is Reason.KEYS_UNAVAILABLE

    run(s, story)


def test_the_status_describes_the_keys_of_each_issuer() -> None:
    s = Setting(FakeIssuer(GITHUB, FakeKey(), NEW))

    async def story() -> None:
        await s.key()
        s.clock.advance(30)
        status = s.ring.status()[GITHUB]
        assert (status.keys, status.age_seconds, status.failure) == (2, 30, "")
        assert not status.pinned
        s.fake.discovery = answering(404)
        s.clock.advance(HOUR)
        await s.ring.refresh_due([s.issuer])
        status = s.ring.status()[GITHUB]
        assert (status.keys, status.age_seconds) == (2, HOUR + 30)
        assert "404" in status.failure

    run(s, story)


# Issuers do not mix


def test_the_kid_of_one_issuer_is_unknown_to_another() -> None:
    github, gitlab = FakeIssuer(GITHUB), FakeIssuer(GITLAB, FakeKey("other", which=1))

    async def both(request: httpx2.Request) -> httpx2.Response:
        return await (github if request.url.host.startswith("token") else gitlab).answer(request)

    ring = KeyRing(lambda _: httpx2.AsyncClient(transport=httpx2.MockTransport(both)), Clock())

    async def story() -> None:
        assert (await ring.key(issuer(GITHUB), "k1", "RS256")).kid == "k1"
        assert (await ring.key(issuer(GITLAB), "other", "RS256")).kid == "other"
        for iss, kid in ((GITHUB, "other"), (GITLAB, "k1")):
            with pytest.raises(Refusal) as caught:
                await ring.key(issuer(iss), kid, "RS256")
            assert caught.value.reason is Reason.UNKNOWN_KEY
        await ring.aclose()

    asyncio.run(story())


def test_each_ca_bundle_has_a_client_of_its_own() -> None:
    fake, opened = FakeIssuer(), list[str | None]()

    def connect(ca_bundle: str | None) -> httpx2.AsyncClient:
        opened.append(ca_bundle)
        return fake.connect()

    ring = KeyRing(connect, Clock())

    async def story() -> None:
        for ca_bundle in (None, "one", "two"):
            await ring.key(issuer(GITHUB, ca_bundle=ca_bundle), "k1", "RS256")
        assert opened == [None, "one", "two"]
        await ring.aclose()

    asyncio.run(story())


# Which keys of a set are used


def test_a_set_is_used_without_its_bad_keys() -> None:
    good = FakeKey("good")
    p256 = FakeKey("ec", "ES256")
    bad: list[object] = [
        7,
        None,
        {},
        {"kty": "oct", "kid": "oct", "k": "AAAA"},
        FakeKey("enc").jwk(use="enc"),
        FakeKey("alg").jwk(alg="RSA-OAEP"),
        FakeKey("alg-of-other-kind").jwk(alg="ES256"),
        FakeKey("ops").jwk(key_ops=["encrypt"]),
        FakeKey("ops-odd").jwk(key_ops="verify"),
        FakeKey("private").jwk(d="AAAA"),
        FakeKey("weak", bits=1024).jwk(),
        FakeKey("giant-exponent").jwk(e=base64url((2**65 + 1).to_bytes(9, "big"))),
        FakeKey("even-exponent").jwk(e="AQAA"),
        FakeKey("no-modulus").jwk(n=None),
        FakeKey("number").jwk(n=65537),
        FakeKey("x" * 257).jwk(),
        FakeKey("k").jwk(kid=7),
        FakeKey("use-odd").jwk(use=["sig"]),
        FakeKey("null-modulus").jwk() | {"n": None},
        FakeKey("empty-exponent").jwk(e=""),
        FakeKey("null-private").jwk() | {"d": None},
        p256.jwk(kid="off-curve", y=p256.jwk()["x"]),
        p256.jwk(kid="other-curve", crv="P-384"),
        p256.jwk(kid="other-alg", alg="ES384"),
        FakeKey("bitcoin", "ES256K").jwk(),
        FakeKey("ed448", "Ed448").jwk(alg="EdDSA"),
        FakeKey("short", "EdDSA").jwk(x="AAAA"),
        FakeKey("twin").jwk(),
        FakeKey("twin", which=1).jwk(),
    ]
    key_set = parse_key_set({"keys": [*bad[:9], good.jwk(), *bad[9:]]})
    assert [key.kid for key in key_set.keys] == ["good"]
    assert {"weak", "twin", "enc", "off-curve", "private"} <= key_set.skipped.keys()
    assert "1024 bits" in key_set.skipped["weak"]


def test_the_same_key_twice_is_one_key() -> None:
    assert len(parse_key_set({"keys": [FakeKey().jwk(), FakeKey().jwk()]}).keys) == 1


def test_only_a_bounded_part_of_a_huge_key_set_is_read() -> None:
    jwk = FakeKey("k", "EdDSA").jwk()
    many: list[object] = [{**jwk, "kid": f"k{n}"} for n in range(MAX_KEYS)]
    key_set = parse_key_set({"keys": [*many, {"kid": "late"}, *many]})
    assert len(key_set.keys) == MAX_KEYS
    assert list(key_set.skipped) == [f"#{MAX_KEYS}"], "the bad key after these was not looked at"
    assert f"only the first {MAX_KEYS} of {2 * MAX_KEYS + 1}" in key_set.skipped[f"#{MAX_KEYS}"]


def test_a_weak_key_is_unknown_and_the_evidence_says_why() -> None:
    s = Setting(FakeIssuer(GITHUB, FakeKey("weak", bits=1024)))

    async def story() -> None:
        with pytest.raises(Refusal) as caught:
            await s.key("weak")
        assert caught.value.reason is Reason.UNKNOWN_KEY
        assert "cannot be used" in caught.value.public
        assert "1024 bits" not in caught.value.public
        assert "1024 bits" in str(caught.value)
        assert "1024 bits" in s.ring.status()[GITHUB].unusable["weak"]
        assert await s.reason("other") is Reason.KEYS_UNAVAILABLE

    run(s, story)


def test_each_key_that_is_passed_over_is_logged_once_with_its_reason() -> None:
    s = Setting(FakeIssuer(GITHUB, FakeKey("weak", bits=1024), NEW))

    async def story() -> None:
        for _ in range(3):
            await s.ring.refresh_due([s.issuer])
            s.clock.advance(11 * MINUTE)

    with logged() as log:
        run(s, story)
    (line,) = [json.loads(each) for each in log.getvalue().splitlines()]
    assert line["event"] == "keys of an issuer are passed over"
    assert (line["iss"], line["number"]) == (GITHUB, 1)
    assert "1024 bits" in line["keys"]["weak"]


def test_a_failure_and_its_end_are_logged_once() -> None:
    s = Setting()

    async def story() -> None:
        await s.ring.refresh_due([s.issuer])
        s.fake.discovery = answering(503)
        for _ in range(3):
            s.clock.advance(HOUR)
            await s.ring.refresh_due([s.issuer])
        s.fake.discovery = s.fake.good_discovery
        s.clock.advance(HOUR)
        await s.ring.refresh_due([s.issuer])

    with logged() as log:
        run(s, story)
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["event"] for line in told] == [
        "keys of an issuer cannot be fetched",
        "keys of an issuer are fetched again",
    ]
    assert (told[0]["keys"], told[0]["level"]) == (1, "warning")
    assert "503" in told[0]["problem"]


def test_while_no_key_is_held_a_failed_fetch_is_tried_again_sooner_and_then_more_rarely() -> None:
    s = Setting()
    s.fake.discovery = answering(503)

    async def story() -> list[float]:
        tries: list[float] = []
        for second in range(120):
            before = len(s.fake.requests)
            await s.ring.refresh_due([s.issuer])
            if len(s.fake.requests) > before:
                tries.append(second)
            s.clock.advance(1)
        return tries

    with logged():
        assert run(s, story) == [0, 5, 15, 35, 65, 95]


def test_an_error_that_nobody_expected_is_a_failure_that_is_told() -> None:
    def connect(_ca_bundle: str | None) -> httpx2.AsyncClient:
        raise ImportError("the package socksio is not installed")

    s = Setting()
    ring = KeyRing(connect, s.clock)

    async def story() -> None:
        await ring.refresh_due([s.issuer])
        (status,) = ring.status().values()
        assert status.failure.startswith("unexpected error (ImportError)")
        with pytest.raises(Refusal) as caught:
            await ring.key(s.issuer, "k1", "RS256")
        assert caught.value.reason is Reason.KEYS_UNAVAILABLE
        await ring.aclose()

    with logged() as log:
        asyncio.run(story())
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    assert "fetching keys failed unexpectedly" in [line["event"] for line in told]


KINDS = {
    "RS256": FakeKey("rsa", "RS256"),
    "ES256": FakeKey("p256", "ES256"),
    "ES384": FakeKey("p384", "ES384"),
    "ES512": FakeKey("p521", "ES512"),
    "EdDSA": FakeKey("ed", "EdDSA"),
}


@pytest.mark.parametrize("alg", sorted(PROFILES["generic"].algorithms))
@pytest.mark.parametrize("kind", KINDS)
def test_a_named_key_must_fit_the_algorithm(kind: str, alg: str) -> None:
    key = KINDS[kind]
    fake = FakeIssuer(GENERIC, key)
    fake.key_set = answering(json={"keys": [key.jwk(alg=None)]})
    s = Setting(fake)
    fits = kind == alg or (kind == "RS256" and alg[:2] in {"RS", "PS"})
    assert run(s, lambda: s.reason(key.kid, alg)) is (None if fits else Reason.BAD_SIGNATURE)
    assert fake.fetches == 1


def test_a_key_published_for_one_algorithm_fits_no_other() -> None:
    s = Setting(FakeIssuer(GENERIC, FakeKey("rsa", "RS256")))
    assert run(s, lambda: s.reason("rsa", "PS256")) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("keys", "alg", "kid"),
    [
        pytest.param([FakeKey(None)], "RS256", None, id="one, nameless"),
        pytest.param([FakeKey("k1")], "RS256", "k1", id="one, named"),
        pytest.param([*KINDS.values()], "ES256", "p256", id="one of its kind"),
    ],
)
def test_without_a_kid_the_only_key_that_fits_is_used(
    keys: list[FakeKey], alg: str, kid: str | None
) -> None:
    s = Setting(FakeIssuer(GENERIC, *keys))
    assert run(s, lambda: s.key(None, alg)).kid == kid


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([FakeKey(None), FakeKey(None, which=1)], id="two that fit, nameless"),
        pytest.param([FakeKey("a"), FakeKey("b", which=1)], id="two that fit, named"),
        pytest.param([KINDS["ES256"]], id="none that fits"),
    ],
)
def test_without_a_kid_nothing_is_guessed(keys: list[FakeKey]) -> None:
    s = Setting(FakeIssuer(GENERIC, *keys))
    assert run(s, lambda: s.reason(None)) is Reason.UNKNOWN_KEY


def test_a_key_without_a_kid_is_used_where_no_key_has_the_tokens_kid() -> None:
    named, nameless = FakeKey("named"), FakeKey(None, which=1)
    s = Setting(FakeIssuer(GENERIC, named, nameless))
    assert run(s, lambda: s.key("named")).kid == "named"
    s = Setting(s.fake)
    assert run(s, lambda: s.key("other")).kid is None
    s = Setting(FakeIssuer(GENERIC, nameless, FakeKey(None, which=2)))
    assert run(s, lambda: s.reason("other")) is Reason.UNKNOWN_KEY, "nothing is guessed"


@pytest.mark.parametrize("member", ["kid", "alg", "use", "key_ops"])
@pytest.mark.parametrize("empty", [None, "", []], ids=["null", "text", "list"])
def test_an_empty_member_of_a_key_is_as_if_it_were_absent(member: str, empty: object) -> None:
    jwk = FakeKey("k1").jwk() | {member: empty}
    fits = not isinstance(empty, list) or member == "key_ops"
    assert len(parse_key_set({"keys": [jwk]}).keys) == fits


def published(*keys: FakeKey, **changes: object) -> KeySet:
    return parse_key_set({"keys": [key.jwk(kid="same", **changes) for key in keys]})


def test_one_kid_may_stand_for_several_keys_of_different_type_or_algorithm() -> None:
    keys = published(*KINDS.values(), FakeKey("pss", "PS256", which=1))
    assert not keys.skipped
    for alg, expected in [*KINDS.items(), ("PS256", FakeKey("pss", "PS256", which=1))]:
        found = keys.find("same", alg)
        assert found is not None
        assert found.public == expected.private.public_key()
    assert keys.find("same", "RS512") is None


def test_two_keys_of_one_kid_and_one_algorithm_are_used_by_none() -> None:
    clash = published(FakeKey(), FakeKey(which=1), KINDS["ES256"], alg=None)
    assert clash.keys == ()
    assert "two different keys" in clash.skipped["same"]
    same_key_twice = parse_key_set({"keys": [FakeKey().jwk(), FakeKey().jwk(alg=None)]})
    assert same_key_twice.find("k1", "RS256")
    assert same_key_twice.find("k1", "PS256")


def test_a_new_algorithm_under_a_known_kid_is_fetched() -> None:
    s = Setting(FakeIssuer(GENERIC, FakeKey("same")))

    async def story() -> None:
        await s.key("same", "RS256")
        s.fake.keys += (FakeKey("same", "ES256"),)
        assert await s.reason("same", "ES256") is None
        assert await s.reason("same", "RS256") is None
        assert s.fake.fetches == 2

    run(s, story)


def test_keys_of_one_session_differ() -> None:
    assert private_key("RS256", 0) is not private_key("RS256", 1)
    assert issuer(GENERIC).provider == "generic"


def test_a_renewed_ring_fetches_all_keys_at_once_over_new_connections() -> None:
    s, clients = Setting(), list[httpx2.AsyncClient]()

    def connect(ca_bundle: str | None) -> httpx2.AsyncClient:
        clients.append(s.fake.connect(ca_bundle))
        return clients[-1]

    s.ring = KeyRing(connect, s.clock)

    async def story() -> None:
        for _ in range(2):
            await s.ring.refresh_due([s.issuer])
        assert (s.fake.fetches, len(clients)) == (1, 1)
        s.fake.keys = (NEW,)
        s.ring.renew()
        await s.ring.refresh_due([s.issuer])
        assert (s.fake.fetches, [client.is_closed for client in clients]) == (2, [True, False])
        assert (await s.key("k2")).kid == "k2"
        await s.ring.refresh_due([s.issuer])
        assert s.fake.fetches == 2

    run(s, story)


def test_a_renewed_ring_ends_no_fetch_that_is_running() -> None:
    s = Setting()
    there = asyncio.Event()

    async def slow(request: httpx2.Request) -> httpx2.Response:
        there.set()
        await asyncio.sleep(0.05)
        return await s.fake.good_discovery(request)

    s.fake.discovery = slow

    async def story() -> None:
        asked = asyncio.create_task(s.key())
        await there.wait()
        s.ring.renew()
        await s.ring.refresh_due([s.issuer])
        assert (await asked).kid == "k1"
        assert s.failure == ""

    run(s, story)
