"""
Attacks on the audit trail: tokens smuggled into it, grants without an event, lines forged.

A caller decides much of what an event is made of. Whatever it sends, no token gets to the disk,
to the log or to the webhook, and no event can be made to look like another.
"""

from __future__ import annotations

import asyncio
import errno
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest
from starlette.types import Message

from federation.app import build
from federation.audit.event import Trail
from federation.audit.journal import FileJournal
from federation.audit.read import StoredEvent, last
from federation.audit.seals import SEAL_TYPE, seal_files
from federation.audit.segments import parts, stored
from federation.audit.verify import check_journal
from federation.config import Settings
from federation.errors import Reason, Refusal
from federation.issuers.key_ring import KeyRing
from federation.jose.jwk import parse_key_set
from federation.state.memory import MemoryStore
from federation.state.sqlite import SqliteStore
from federation.tokens.mint import sign_jws
from federation.tokens.signing_keys import SigningKey
from federation.tokens.verify import AccessTokens, Bearer
from tests.harness.broker import URL, InProcess, form, logged, refusal, said
from tests.harness.clock import Clock
from tests.harness.issuer import base64url
from tests.harness.journal_writer import event, examine, sign
from tests.harness.webhook_receiver import answer, receiving

OTHER = SigningKey.generate()


class OnDisk(InProcess):
    """A broker with everything that it remembers on disk."""

    def __init__(self, state: Path, webhook: str | None = None) -> None:
        super().__init__()
        documents = state.parent / "unread"
        documents.mkdir(exist_ok=True)
        self.folder = state / "audit"
        self.issued: list[str] = []
        self.app = build(
            Settings(issuer_url=URL, documents=(documents,), state=state, audit_webhook=webhook),
            source=self.source,
            keys=KeyRing(self._connect, Clock()),
            signing=self.signing,
            state=SqliteStore(state / "state.db", self.clock),
            clock=self.clock,
        )

    def events(self) -> list[StoredEvent]:
        """Every event on disk."""
        return [event for part in parts(self.folder) for event in last(part, 1000)]

    def job(self, sample: str = "github-push-main", **changes: object) -> str:
        self.issued.append(super().job(sample, **changes))
        return self.issued[-1]


@pytest.fixture
def broker(tmp_path: Path) -> OnDisk:
    return OnDisk(tmp_path / "state")


def segments(*tokens: str) -> Iterator[str]:
    """Texts that must not be found anywhere: parts of payload and signature of *tokens*."""
    for token in tokens:
        for segment in token.split(".")[1:]:
            if len(segment) >= 40:
                yield segment
                yield segment[:60]


def attempts(broker: OnDisk) -> Iterator[tuple[str, dict[str, object]]]:
    """Exchanges of all kinds: a token and changes to the form."""
    token = broker.job()
    yield token, {}
    yield token, {}  # again
    yield broker.job(ref="refs/heads/topic"), {}
    yield broker.job(aud="https://other.example.com"), {}
    yield broker.job(exp=1.0, iat=0.5), {}
    yield broker.job(iss="https://unknown.example.com"), {}
    yield broker.job()[:-4] + "AAAA", {}
    yield broker.job().replace(".", "", 1), {}
    yield broker.job(), {"scope": "everything"}
    yield broker.job(), {"audience": "https://elsewhere.example.com"}
    yield broker.job(), {"grant_type": "password"}
    yield broker.job(), {"subject_token_type": "saml"}
    yield "x" * 20_000, {}
    # A token in every place where a caller may write.
    for name in ("role", "audience", "scope", "grant_type", "requested_token_type", "resource"):
        yield broker.job(), {name: broker.job()}
    yield broker.job(), {"scope": "function", "audience": broker.job()}
    yield broker.job(), {"role": [broker.job() for _ in range(5)]}
    for claim in ("sub", "ref", "workflow", "aud", "iss", "jti", "event_name", "repository"):
        for value in (broker.job(), f"a/{broker.job()}/b"):
            changes: dict[str, object] = {claim: value}
            yield broker.job("github-push-main", **changes), {}
    for kid in (broker.job(), "k" * 150 + broker.job()):
        yield broker.github.token(broker.claims(), header={"kid": kid}), {}
    yield broker.github.token(broker.claims(), header={"alg": broker.job()}), {}


def test_no_token_is_ever_written(tmp_path: Path) -> None:
    with receiving() as receiver, logged() as log:
        broker = OnDisk(tmp_path / "state", webhook=receiver.url)
        secrets: list[str] = []

        async def story(client: httpx2.AsyncClient) -> int:
            count = 0
            async with broker.app.router.lifespan_context(broker.app):
                for token, changes in attempts(broker):
                    secrets.append(token)
                    answer = await client.post("/oauth/token", data=form(token, **changes))
                    count += 1
                    if answer.status_code == 200:
                        own = answer.json()["access_token"]
                        secrets.append(own)
                        again = form(own, scope="function", audience="dev:env")
                        answer = await client.post("/oauth/token", data=again)
                        count += 1
                        secrets.append(answer.json()["access_token"])
                        await client.post("/oauth/revoke", data={"token": own})
                        count += 1
            return count

        count = broker.tell(story)
        secrets += broker.issued
        written = b"".join(path.read_bytes() for path in _files(tmp_path / "state")).decode(
            "utf-8", "replace"
        )
        sent = b"".join(each.body for each in receiver.seen).decode()
    assert len(secrets) > 60
    said_of = Counter(json.loads(line)["event"] for line in log.getvalue().splitlines())
    assert said_of["audit"] + said_of["exchange refused"] == count, "each left its line"
    assert len(broker.events()) == said_of["audit"] > count / 2
    assert len(receiver.event_ids) == said_of["audit"]
    for place, text in (("disk", written), ("webhook", sent), ("log", log.getvalue())):
        found = {segment for segment in segments(*secrets) if segment in text}
        assert not found, place
        assert "token_sha256" in text


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "payload", [b'{"a":1}', b'{ "a": 1, "b": "cccccccccccc"}', b'{\n  "iss": "https://x"}'], ids=str
)
def test_a_token_is_known_however_its_json_is_laid_out(payload: bytes) -> None:
    header = base64url(payload[:1] + b'"alg": "RS256", ' + payload[1:])
    token = f"{header}.{base64url(payload * 4)}.{'s' * 80}"
    trail = Trail("r", "POST", f"/function/{token}", 1.0)
    trail.refused(Refusal(Reason.EXPIRED, evidence={"claims": {"deep": [f"x {token} y"]}}))
    written = json.dumps(trail.event(400).as_json())
    assert "s" * 20 not in written
    assert base64url(payload * 4) not in written
    assert "(a token)" in written


@pytest.mark.alone
def test_looking_for_tokens_takes_linear_time() -> None:
    trail = Trail("r", "POST", "/", 1.0)
    fools = ["eyJ" * 20_000, "eyJ" + "a" * 60_000, "eyJ." * 15_000, "a." * 30_000, "." * 60_000]
    trail.refused(Refusal(Reason.EXPIRED, evidence={"fools": fools}))
    began = time.perf_counter()
    trail.event(400)
    assert time.perf_counter() - began < 0.5


def test_no_caller_can_forge_a_line(broker: OnDisk) -> None:
    forged = '"}\n{"event_id":"forged","response_code":200,"chain":"' + "0" * 64 + '"}\n'
    for name in ("role", "audience"):
        assert broker.exchange(broker.job(), **{name: forged}).status_code == 400
    assert broker.exchange(broker.job(sub=forged)).status_code == 200
    events = broker.events()
    assert len(events) == 3
    assert "forged" not in {event["event_id"] for event in events}
    assert check_journal(broker.folder, parse_key_set({**broker.signing.jwks()})).whole


# Seals and tokens are signed by the same keys


def sealed_by(broker: OnDisk) -> str:
    """The seal that *broker* leaves when it stops after one exchange."""

    async def story(client: httpx2.AsyncClient) -> None:
        async with broker.app.router.lifespan_context(broker.app):
            await client.post("/oauth/token", data=form(broker.job()))

    broker.tell(story)
    (seal,) = seal_files(broker.folder).values()
    return seal.read_text("ascii")


def test_a_broker_that_stops_has_sealed_its_trail(broker: OnDisk) -> None:
    sealed_by(broker)
    check = check_journal(broker.folder, parse_key_set({**broker.signing.jwks()}))
    assert (check.events, check.findings) == (1, [])
    assert not check_journal(broker.folder, parse_key_set({"keys": [OTHER.jwk]})).whole


def test_a_seal_is_no_token(broker: OnDisk, tmp_path: Path) -> None:
    seal = sealed_by(broker)
    other = OnDisk(tmp_path / "other")
    other.app.state.broker.signing = broker.signing
    assert refusal(other.exchange(seal)) == (400, "missing_claim")
    with pytest.raises(Refusal):
        asyncio.run(_bearer(broker, seal))


def test_the_claims_of_an_access_token_in_a_seal_open_nothing(broker: OnDisk) -> None:
    token = broker.access_token()
    asyncio.run(_bearer(broker, token))
    seal = sign_jws(said(token), broker.signing.signs, SEAL_TYPE)
    with pytest.raises(Refusal) as caught:
        asyncio.run(_bearer(broker, seal))
    assert caught.value.reason is Reason.WRONG_AUDIENCE
    assert caught.value.evidence == {"typ": SEAL_TYPE}
    assert broker.exchange(token, scope="function", audience="dev:env").status_code == 200
    answer = broker.exchange(seal, scope="function", audience="dev:env")
    assert refusal(answer) == (400, "wrong_audience")


async def _bearer(broker: OnDisk, token: str) -> Bearer:
    """The bearer of *token* at the gateway."""
    tokens = AccessTokens(URL, MemoryStore(broker.clock), broker.clock)
    return await tokens.bearer(token, broker.signing)


def test_an_access_token_is_no_seal(broker: OnDisk) -> None:
    token = broker.access_token()
    sealed_by(broker)
    (path,) = seal_files(broker.folder).values()
    path.write_text(token, "ascii")
    check = check_journal(broker.folder, parse_key_set({**broker.signing.jwks()}))
    assert "is not a signed seal: its header has another type or algorithm" in {
        finding.message for finding in check.findings if finding.broken
    }


def test_no_grant_leaves_without_its_event(broker: OnDisk) -> None:
    broker.folder.parent.mkdir()
    broker.folder.write_text("in the way")
    token = broker.job()
    answer = broker.exchange(token)
    assert refusal(answer) == (503, "audit_unavailable")
    assert "access_token" not in answer.text
    assert str(broker.folder) not in answer.text, "what the disk says is for the operator"
    broker.folder.unlink()
    assert broker.exchange(token).status_code == 200, "the subject token was given back"
    assert [event["response_code"] for event in broker.events()] == [200]


def test_readiness_is_lost_with_the_journal_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    obstacle = tmp_path / "state" / "audit"
    obstacle.write_text("in the way")
    broker = OnDisk(tmp_path / "state")

    async def story(client: httpx2.AsyncClient) -> None:
        async with broker.app.router.lifespan_context(broker.app):
            await _until_ready(client, 503)
            said = (await client.get("http://localhost:8080/readyz")).json()
            assert said["status"] == "unavailable"
            assert said["audit"]["problem"]
            obstacle.unlink()
            await _until_ready(client, 200)

    broker.tell(story)


def test_a_webhook_that_refuses_the_broker_shows_in_readiness_at_once(tmp_path: Path) -> None:
    with receiving() as receiver, logged():
        receiver.next = [answer(401)] * 100
        on_disk = OnDisk(tmp_path / "state", webhook=receiver.url)

        async def story(client: httpx2.AsyncClient) -> None:
            async with on_disk.app.router.lifespan_context(on_disk.app):
                await client.post("/oauth/token", data=form(on_disk.job()))
                for _ in range(500):
                    told = (await client.get("http://localhost:8080/readyz")).json()
                    if "audit webhook: HTTP 401" in told["degraded"]:
                        return
                    await asyncio.sleep(0.01)
                pytest.fail("/readyz never named the status")

        on_disk.tell(story)


async def _until_ready(client: httpx2.AsyncClient, status: int) -> None:
    for _ in range(500):
        if (await client.get("http://localhost:8080/readyz")).status_code == status:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"/readyz never said {status}")


def test_the_operator_sees_expected_values_and_the_caller_does_not(
    broker: OnDisk,
) -> None:
    with logged() as log:
        answer = broker.exchange(broker.job(ref="refs/heads/topic"))
    (event,) = broker.events()
    (line,) = [json.loads(text) for text in log.getvalue().splitlines() if '"audit"' in text]
    hidden = "refs/heads/only-the-operator-knows"
    assert event["request_id"] == line["request_id"] == answer.json()["request_id"]
    for told in (str(event["custom_message"]), json.dumps(line["evidence"])):
        assert hidden in told
        assert "refs/heads/topic" in told
    assert hidden not in answer.text


def test_a_flood_of_refusals_stays_within_the_bound(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, 256 * 1024, sign=sign)

    async def story() -> None:
        for number in range(100):
            trail = Trail(f"r{number}", "POST", "/oauth/token", 1.0)
            asked = {"roles_asked": ["role" * 1000] * 50}
            trail.refused(Refusal(Reason.ROLE_NOT_ADMITTED, evidence=asked))
            await journal.record(trail.event(400))
        await journal.aclose()

    asyncio.run(story())
    assert sum(path.stat().st_size for path in _files(tmp_path)) <= 256 * 1024


def test_no_header_hides_the_events_of_a_sealed_segment(tmp_path: Path) -> None:
    async def story() -> None:
        journal = FileJournal(tmp_path, 64 * 1024, sign=sign)
        for number in range(25):
            await journal.record(event(number))
        await asyncio.to_thread(journal._try_to_seal, journal._seal_own)

    asyncio.run(story())
    sealed, unsealed = (segment.path for segment in stored(tmp_path))
    end = b'"bytes":%d' % sealed.stat().st_size
    shorter = b'"bytes":%d' % (sealed.stat().st_size - 1000)
    assert examine(tmp_path).whole
    unsealed.write_bytes(unsealed.read_bytes().replace(end, shorter, 1))
    assert len(last(tmp_path, 100)) < 25
    (found,) = [f for f in examine(tmp_path).findings if f.broken]
    assert found.path == sealed
    assert "events that readers leave out" in found.message


def test_a_seal_that_cannot_be_read_stops_no_event(tmp_path: Path) -> None:
    (tmp_path / "000000000007.seal").mkdir()

    async def story() -> None:
        journal = FileJournal(tmp_path, 64 * 1024, sign=sign)
        for number in range(300):  # more than fit, so segments must go
            await journal.record(event(number))
            if number % 50 == 0:
                await asyncio.to_thread(journal._try_to_seal, journal._seal_all)
        await journal.aclose()

    asyncio.run(story())
    assert last(tmp_path, 1)[0]["request_id"] == "request-299"


def test_a_grant_whose_answer_cannot_be_sent_leaves_one_event() -> None:
    broker = InProcess()
    body = urlencode(form(broker.job())).encode()
    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    path = "/oauth/token"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "headers": headers,
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(_message: Message) -> None:
        raise OSError(errno.EPIPE, "Broken pipe")

    with pytest.raises(OSError, match="Broken pipe"):
        asyncio.run(broker.app(scope, receive, send))
    assert [event.as_json()["response_code"] for event in broker.journal.events] == [200]
