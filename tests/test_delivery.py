"""Each event reaches the webhook at least once, in order, through faults and restarts."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from federation.audit.backlog import undelivered_from
from federation.audit.delivery import Delivery
from federation.audit.journal import FileJournal
from federation.audit.read import BATCH_EVENTS
from federation.audit.segments import set_cursor, stored
from federation.audit.webhook import NotDelivered, Webhook, read_header
from federation.outbound import Outbound
from tests.harness.broker import logged
from tests.harness.certificates import Authority
from tests.harness.journal_writer import SIZE, event, recorded, recorder, sign
from tests.harness.process import free_port
from tests.harness.raw_server import http_answer, raw_server
from tests.harness.webhook_receiver import (
    Behaviour,
    Receiver,
    answer,
    cut,
    endless,
    hang_up,
    receiving,
    slow,
)

pytestmark = pytest.mark.alone


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as up:
        yield up


def at_once(_least: float, _most: float) -> float:
    """Jitter that never waits."""
    return 0.0


def deliver(
    folder: Path,
    webhook: Webhook,
    story: Callable[[FileJournal], Awaitable[None]],
    jitter: Callable[[float, float], float] = at_once,
) -> None:
    """Run *story* with a journal whose delivery runs, then stop both as the server does."""

    async def told() -> None:
        journal = FileJournal(folder, SIZE, deliver=True, sign=sign)
        delivery = Delivery(journal, webhook, jitter)
        running = asyncio.create_task(delivery.run())
        try:
            await story(journal)
        finally:
            delivery.stop()
            await asyncio.wait([running], timeout=5)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await journal.aclose()

    asyncio.run(told())


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to that")


async def record(journal: FileJournal, count: int = 1) -> None:
    await asyncio.gather(*(journal.record(event(number)) for number in range(count)))


# What is sent


def test_a_delivery_has_the_headers_of_openfaas(tmp_path: Path, receiver: Receiver) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    webhook = Webhook(receiver.url, secret=secret)
    deliver(tmp_path / "audit", webhook, record)
    (sent,) = receiver.taken
    digest = hmac.new(b"s3cret", sent.body, hashlib.sha256).hexdigest()
    assert sent.headers["x-openfaas-signature-256"] == f"sha256={digest}"
    assert sent.headers["x-openfaas-event"] == "api_access"
    assert sent.headers["content-type"] == "application/json"
    assert len(sent.headers["x-openfaas-delivery"]) == 36
    assert "s3cret" not in repr(webhook)


def test_a_delivered_event_has_only_its_own_members(tmp_path: Path, receiver: Receiver) -> None:
    one = event()

    async def story(journal: FileJournal) -> None:
        await journal.record(one)

    deliver(tmp_path, Webhook(receiver.url), story)
    (sent,) = receiver.taken
    (got,) = sent.events
    assert set(got) == set(one.as_json())
    assert "x-openfaas-signature-256" not in sent.headers


@pytest.mark.parametrize(
    ("written", "meant"),
    [(b"key", b"key"), (b"key\n", b"key"), (b"key\r\n", b"key"), (b"key\n\n", b"key\n")],
    ids=["bare", "newline", "carriage return", "only one newline"],
)
def test_one_line_end_is_removed_from_the_secret(
    tmp_path: Path, receiver: Receiver, written: bytes, meant: bytes
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(written)
    deliver(tmp_path / "audit", Webhook(receiver.url, secret=secret), record)
    (sent,) = receiver.taken
    expected = hmac.new(meant, sent.body, hashlib.sha256).hexdigest()
    assert sent.headers["x-openfaas-signature-256"] == f"sha256={expected}"


def test_a_changed_secret_signs_from_then_on(tmp_path: Path, receiver: Receiver) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first")

    async def story(journal: FileJournal) -> None:
        await record(journal)
        await until(lambda: len(receiver.taken) == 1)
        secret.write_text("second")
        await record(journal)

    deliver(tmp_path / "audit", Webhook(receiver.url, secret=secret), story)
    sent = receiver.taken[-1]
    expected = hmac.new(b"second", sent.body, hashlib.sha256).hexdigest()
    assert sent.headers["x-openfaas-signature-256"] == f"sha256={expected}"


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["missing", "empty", "newline alone"])
def test_nothing_is_sent_unsigned_if_the_secret_cannot_be_read(
    tmp_path: Path, receiver: Receiver, content: str | None
) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_text(content)

    async def story() -> None:
        with pytest.raises(NotDelivered):
            await Webhook(receiver.url, secret=secret).post(b"[]", "id")

    asyncio.run(story())
    assert receiver.seen == []


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_an_extra_header_is_sent_and_read_again_for_each_delivery(
    tmp_path: Path, receiver: Receiver, end: str
) -> None:
    header = tmp_path / "header"
    header.write_text(f"Authorization: Bearer one two{end}", newline="")
    webhook = Webhook(receiver.url, header=header)

    async def story(journal: FileJournal) -> None:
        await journal.record(event(1))
        await until(lambda: len(receiver.taken) == 1)
        header.write_text("X-Api-Key:other")
        await journal.record(event(2))
        await until(lambda: len(receiver.taken) == 2)

    deliver(tmp_path / "audit", webhook, story)
    first, second = receiver.taken
    assert first.headers["authorization"] == "Bearer one two"
    assert (second.headers["x-api-key"], second.headers.get("authorization")) == ("other", None)
    assert "Bearer" not in repr(webhook)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "\n",
            "no colon",
            "a: b\nc: d",
            "a: b\n\n",
            "a: b\r\nX-Other: c",
            "a:\x00b",
            "a: \xe9",
        ),
        *(" a: b", "a b: c", ": b", "a:", f"a: {'x' * 4096}"),
        *("Host: elsewhere", "content-length: 5", "Transfer-Encoding: chunked"),
        *("X-Openfaas-Signature-256: sha256=00", "x-openfaas-event: other"),
    ],
    ids=repr,
)
def test_a_file_that_is_not_one_good_header_line_is_not_sent(
    tmp_path: Path, receiver: Receiver, text: str
) -> None:
    header = tmp_path / "header"
    header.write_text(text, encoding="latin-1", newline="")
    with pytest.raises(ValueError, match=str(header)) as caught:
        read_header(header)
    assert len(text) < 20 or text not in str(caught.value), "it may be a secret"
    with pytest.raises(NotDelivered, match="the extra header cannot be read"):
        asyncio.run(Webhook(receiver.url, header=header).post(b"[]", "id"))
    assert receiver.seen == []


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 410])
def test_a_refusal_that_only_an_operator_can_end_is_a_problem_at_once(
    tmp_path: Path, receiver: Receiver, status: int
) -> None:
    receiver.next = [answer(status)]
    assert problems(tmp_path, receiver) == [None, f"HTTP {status}", None]


@pytest.mark.parametrize("behaviour", [answer(500), answer(429), answer(408), hang_up])
def test_a_fault_that_may_pass_is_none(
    tmp_path: Path, receiver: Receiver, behaviour: Behaviour
) -> None:
    receiver.next = [behaviour]
    assert problems(tmp_path, receiver) == [None, None, None]


def problems(folder: Path, receiver: Receiver) -> list[str | None]:
    """The problem before the first delivery, after its failure, and after it was accepted."""
    seen: list[str | None] = []

    async def story() -> None:
        journal = FileJournal(folder, SIZE, deliver=True, sign=sign)
        delivery = Delivery(journal, Webhook(receiver.url), lambda _least, _most: 0.5)
        seen.append(delivery.problem)
        running = asyncio.create_task(delivery.run())
        await journal.record(event())
        await until(lambda: bool(receiver.seen))
        await asyncio.sleep(0.2)  # its answer arrives
        seen.append(delivery.problem)
        await until(lambda: bool(receiver.taken))
        delivery.stop()
        await running
        seen.append(delivery.problem)
        await journal.aclose()

    asyncio.run(story())
    return seen


def test_events_go_in_batches_and_in_order(tmp_path: Path, receiver: Receiver) -> None:
    async def story(journal: FileJournal) -> None:
        await record(journal, 1000)

    deliver(tmp_path, Webhook(receiver.url), story)
    assert receiver.event_ids == recorded(tmp_path)
    assert len(receiver.taken) < 25
    assert max(len(each.events) for each in receiver.taken) <= BATCH_EVENTS


def test_a_batch_is_bounded_in_bytes_too(tmp_path: Path, receiver: Receiver) -> None:
    big = event(message="x" * 16_000)

    async def story(journal: FileJournal) -> None:
        await asyncio.gather(*(journal.record(big) for _ in range(100)))

    deliver(tmp_path, Webhook(receiver.url), story)
    assert sum(len(each.events) for each in receiver.taken) == 100
    assert max(len(each.body) for each in receiver.taken) <= 512 * 1024


# Faults


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(answer(500), id="500"),
        pytest.param(answer(503), id="503"),
        pytest.param(answer(429, Retry_After="0"), id="429"),
        pytest.param(answer(400), id="400"),
        pytest.param(answer(401), id="401"),
        pytest.param(answer(413), id="413"),
        pytest.param(answer(302, Location="/elsewhere"), id="redirect"),
        pytest.param(answer(308, Location="/elsewhere"), id="permanent redirect"),
        pytest.param(answer(304), id="304"),
        pytest.param(cut, id="closes mid-response"),
        pytest.param(hang_up, id="hangs up"),
        pytest.param(slow(0.6), id="slow"),
    ],
)
def test_only_a_whole_2xx_in_time_counts(
    tmp_path: Path, receiver: Receiver, fault: Behaviour
) -> None:
    receiver.next = [fault, fault]

    async def story(journal: FileJournal) -> None:
        await record(journal, 3)
        await until(lambda: bool(receiver.taken))

    deliver(tmp_path, Webhook(receiver.url, total_seconds=0.4), story)
    assert receiver.event_ids == recorded(tmp_path)
    assert {each.path for each in receiver.seen} == {"/events"}
    assert len({each.headers["x-openfaas-delivery"] for each in receiver.seen}) == 1
    assert len({each.body for each in receiver.seen}) == 1


def test_an_answer_without_end_is_not_read_to_the_end(tmp_path: Path, receiver: Receiver) -> None:
    receiver.next = [endless]

    async def story(journal: FileJournal) -> None:
        await record(journal)
        await until(lambda: bool(receiver.seen))
        await record(journal)

    deliver(tmp_path, Webhook(receiver.url), story)
    assert len(receiver.seen) == 2
    assert len(receiver.taken) == 1


@pytest.mark.parametrize("dated", [False, True], ids=["seconds", "date"])
def test_retry_after_is_honoured(tmp_path: Path, receiver: Receiver, dated: bool) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=2)  # a date has no parts of a second
    asked = format_datetime(moment, usegmt=True) if dated else "1"
    receiver.next = [answer(429, Retry_After=asked)]

    async def story(journal: FileJournal) -> None:
        await record(journal)
        await until(lambda: bool(receiver.taken))

    deliver(tmp_path, Webhook(receiver.url), story)
    first, second = receiver.seen
    assert second.at - first.at >= 0.9


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("7", 7.0),
        ("99999999", 300.0),
        ("", 0.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("9" * 400, 0.0),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2999 00:00:00 GMT", 300.0),
    ],
)
def test_retry_after_is_bounded(receiver: Receiver, given: str, seconds: float) -> None:
    receiver.next = [answer(503, Retry_After=given)]

    async def story() -> None:
        webhook = Webhook(receiver.url)
        with pytest.raises(NotDelivered) as caught:
            await webhook.post(b"[]", "id")
        await webhook.aclose()
        assert caught.value.retry_after_seconds == seconds

    asyncio.run(story())


def test_pauses_double_up_to_a_minute(tmp_path: Path, receiver: Receiver) -> None:
    receiver.next = [answer(500)] * 9
    asked: list[tuple[float, float]] = []

    def jitter(least: float, most: float) -> float:
        asked.append((least, most))
        return 0.0

    async def story(journal: FileJournal) -> None:
        await record(journal)
        await until(lambda: bool(receiver.taken))

    deliver(tmp_path, Webhook(receiver.url), story, jitter)
    assert asked == [(0, most) for most in (1, 2, 4, 8, 16, 32, 60, 60, 60)]


@pytest.mark.parametrize(("status", "level"), [(500, "warning"), (429, "warning"), (400, "error")])
def test_the_log_says_what_the_webhook_does_and_not_where_it_is(
    tmp_path: Path, receiver: Receiver, status: int, level: str
) -> None:
    receiver.next = [answer(status)]

    async def story(journal: FileJournal) -> None:
        await record(journal)
        await until(lambda: bool(receiver.taken))

    with logged() as log:
        deliver(tmp_path, Webhook(f"{receiver.url}/path-with-a-key"), story)
    assert f"HTTP {status}" in log.getvalue()
    assert level in {json.loads(line)["level"] for line in log.getvalue().splitlines()}
    assert "path-with-a-key" not in log.getvalue()


def test_a_webhook_that_comes_up_late_gets_everything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def story(journal: FileJournal) -> None:
        await record(journal, 5)
        await asyncio.sleep(0.1)
        with receiving(port) as late:
            await until(lambda: len(late.event_ids) == 5)
            assert late.event_ids == recorded(tmp_path)

    deliver(tmp_path, Webhook(f"http://127.0.0.1:{port}/"), story, lambda *_: 0.02)


# Restarts


def test_undelivered_events_are_delivered_after_a_restart(
    tmp_path: Path, receiver: Receiver
) -> None:
    async def down(journal: FileJournal) -> None:
        await record(journal, 250)

    async def nothing(_journal: FileJournal) -> None:
        await until(lambda: len(receiver.event_ids) == 250)

    deliver(tmp_path, Webhook("http://127.0.0.1:1/"), down)
    assert receiver.seen == []
    deliver(tmp_path, Webhook(receiver.url), nothing)
    assert receiver.event_ids == recorded(tmp_path)


def test_delivered_events_are_not_delivered_again_after_a_restart(
    tmp_path: Path, receiver: Receiver
) -> None:
    async def five(journal: FileJournal) -> None:
        await record(journal, 5)

    for _ in range(3):
        deliver(tmp_path, Webhook(receiver.url), five)
    assert sorted(receiver.event_ids) == sorted(recorded(tmp_path))
    assert len(receiver.event_ids) == 15


def test_a_living_process_delivers_its_own_events(tmp_path: Path, receiver: Receiver) -> None:
    async def story(journal: FileJournal) -> None:
        other = FileJournal(tmp_path, SIZE, deliver=True, sign=sign)
        await other.record(event(1))
        await journal.record(event(2))
        await until(lambda: len(receiver.event_ids) == 1)
        await asyncio.sleep(0.1)
        assert len(receiver.event_ids) == 1
        await other.aclose()

    deliver(tmp_path, Webhook(receiver.url), story)


def test_events_of_a_killed_process_are_delivered_by_another(
    tmp_path: Path, receiver: Receiver
) -> None:
    with recorder(tmp_path, "--webhook", "http://127.0.0.1:1/") as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(300)]

    async def nothing(_journal: FileJournal) -> None:
        await until(lambda: set(acknowledged) <= set(receiver.event_ids))

    deliver(tmp_path, Webhook(receiver.url), nothing)
    assert receiver.event_ids == recorded(tmp_path)
    assert [path for path in tmp_path.iterdir() if path.suffix == ".lock"] == []


@pytest.mark.e2e
def test_killed_again_and_again_everything_arrives(tmp_path: Path, receiver: Receiver) -> None:
    acknowledged: list[str] = []
    for number in range(12):
        with recorder(tmp_path, "--webhook", receiver.url) as process:
            assert process.stdout is not None
            acknowledged.append(process.stdout.readline().strip())
            time.sleep(0.02 * number)
            process.kill()
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]

    async def nothing(_journal: FileJournal) -> None:
        await until(lambda: set(acknowledged) <= set(receiver.event_ids))

    deliver(tmp_path, Webhook(receiver.url), nothing)
    assert set(recorded(tmp_path)) == set(receiver.event_ids)


def test_a_full_disk_does_not_send_the_same_over_and_over(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("federation.audit.delivery.set_cursor", full)

    async def story(journal: FileJournal) -> None:
        await record(journal, 3)
        await until(lambda: len(receiver.event_ids) == 3)
        await record(journal, 2)
        await until(lambda: len(receiver.event_ids) == 5)

    deliver(tmp_path, Webhook(receiver.url), story)
    assert receiver.event_ids == recorded(tmp_path)


def test_what_was_delivered_while_the_disk_was_full_may_go_once_there_is_room(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True

    def write(path: Path, offset: int) -> None:
        if full:
            raise OSError(28, "No space left on device")
        set_cursor(path, offset)

    monkeypatch.setattr("federation.audit.delivery.set_cursor", write)

    async def story() -> None:
        nonlocal full
        journal = FileJournal(tmp_path, 64 * 1024, deliver=True, sign=sign)  # many segments
        delivery = Delivery(journal, Webhook(receiver.url), at_once)
        running = asyncio.create_task(delivery.run())
        for number in range(60):
            await journal.record(event(number))
        await until(lambda: len(receiver.event_ids) == 60)
        closed = [segment for segment in stored(tmp_path) if not segment.latest]
        assert len(closed) > 2
        full = False
        await journal.record(event(60))
        await until(lambda: all(undelivered_from(segment) is None for segment in closed))
        await until(lambda: len(receiver.event_ids) == 61)
        delivery.stop()
        await running
        await journal.aclose()

    asyncio.run(story())
    assert len(receiver.event_ids) == 61, "none was sent twice"


def test_a_damaged_line_does_not_stop_the_others(tmp_path: Path, receiver: Receiver) -> None:
    async def down(journal: FileJournal) -> None:
        for number in range(3):
            await journal.record(event(number))

    async def nothing(_journal: FileJournal) -> None:
        await until(lambda: len(receiver.event_ids) == 2)

    deliver(tmp_path, Webhook("http://127.0.0.1:1/"), down)
    (segment,) = stored(tmp_path)
    text = segment.path.read_bytes().splitlines(keepends=True)
    text[2] = b"x" * (len(text[2]) - 1) + b"\n"
    segment.path.write_bytes(b"".join(text))
    with logged() as log:
        deliver(tmp_path, Webhook(receiver.url), nothing)
    assert "were changed and are not delivered" in log.getvalue()


def test_an_unexpected_fault_is_logged_and_delivery_goes_on(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = Webhook(receiver.url)
    post = webhook.post
    faults = iter([OSError(5, "Input/output error")])

    async def broken(body: bytes, delivery_id: str) -> None:
        for fault in faults:
            raise fault
        await post(body, delivery_id)

    monkeypatch.setattr(webhook, "post", broken)

    async def story(journal: FileJournal) -> None:
        await record(journal)
        await until(lambda: bool(receiver.taken))

    with logged() as log:
        deliver(tmp_path, webhook, story)
    assert "audit delivery failed; it goes on" in log.getvalue()


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in `key.pem` beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.mark.parametrize("trusted", ["setting", "SSL_CERT_FILE", None], ids=str)
def test_a_private_ca_is_trusted_where_it_is_given(certificate: Path, trusted: str | None) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_name("key.pem"))
    environ = {"SSL_CERT_FILE": str(certificate)} if trusted == "SSL_CERT_FILE" else {}

    async def story(url: str) -> None:
        ca = certificate if trusted == "setting" else None
        webhook = Webhook(url, ca=ca, outbound=Outbound.of(environ))
        try:
            await webhook.post(b"[]", "id")
        finally:
            await webhook.aclose()

    with receiving(tls=tls) as receiver:
        if trusted:
            asyncio.run(story(receiver.url))
            assert len(receiver.taken) == 1
        else:
            with pytest.raises(NotDelivered, match="its certificate is not trusted"):
                asyncio.run(story(receiver.url))
            assert receiver.seen == []


def test_a_proxy_of_the_environment_is_used(receiver: Receiver) -> None:
    proxy = str(httpx2.URL(receiver.url).copy_with(path="/"))

    async def story() -> None:
        outbound = Outbound.of({"HTTP_PROXY": proxy})
        webhook = Webhook("http://receiver.invalid/events", outbound=outbound)
        await webhook.post(b"[]", "id")
        await webhook.aclose()

    asyncio.run(story())
    (sent,) = receiver.taken
    assert sent.path == "http://receiver.invalid/events"


def test_a_renewed_webhook_reads_its_ca_before_the_next_batch(tmp_path: Path) -> None:
    authorities = [Authority(tmp_path / name) for name in ("first", "second")]
    ca, port = tmp_path / "ca.pem", free_port()

    async def reply(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(http_answer(""))

    async def story() -> None:
        async with aclosing(Webhook(f"https://127.0.0.1:{port}/", ca=ca)) as webhook:
            for authority in authorities:
                ca.write_bytes(authority.certificate.read_bytes())
                webhook.renew()
                async with raw_server(reply, port=port, tls=authority.server()):
                    await webhook.post(b"[]", "id")

    asyncio.run(story())
