"""Readiness: the broker is ready if it can answer exchanges; other problems are only listed."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import httpx2
import pytest

from federation.audit.delivery import Delivery
from federation.audit.event import Trail
from federation.audit.journal import FileJournal
from federation.audit.webhook import Webhook
from federation.errors import Problem, Reason, Refusal, Severity
from federation.server.readiness import (
    Said,
    liveness,
    read_reports,
    readiness,
    remove_report,
    write_report,
)
from federation.state.memory import MemoryStore
from tests.harness.broker import BrokenStore, InProcess, form, logged
from tests.harness.builders import NOW
from tests.harness.issuer import FakeKey, answering
from tests.harness.journal_writer import sign

Told = TypeVar("Told")


class SilentStore(MemoryStore):
    """A store that never answers."""

    async def check(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError


def ready(broker: InProcess) -> tuple[int, dict[str, Any]]:
    answer = broker.ask("GET", "http://localhost:8080/readyz")
    return answer.status_code, answer.json()


def up(broker: InProcess, story: Callable[[httpx2.AsyncClient], Awaitable[Told]]) -> Told:
    """The result of *story* while the broker runs as it does in a server."""

    async def within(client: httpx2.AsyncClient) -> Told:
        async with broker.app.router.lifespan_context(broker.app):
            return await story(client)

    return broker.tell(within)


def test_a_healthy_broker_is_ready_without_problems() -> None:
    status, said = ready(InProcess())
    assert (status, said["status"]) == (200, "ok")
    assert said["unavailable"] == said["degraded"] == []


def test_a_store_that_cannot_answer_makes_it_unready_and_says_why() -> None:
    class Down(BrokenStore):
        async def check(self) -> str:
            raise Refusal(Reason.STATE_UNAVAILABLE, evidence={"shared-state": "ConnectionError"})

    status, said = ready(InProcess(state=Down))
    assert (status, said["status"]) == (503, "unavailable")
    assert said["unavailable"] == ["store: ConnectionError"]


def test_a_store_that_does_not_answer_makes_it_unready_within_a_second() -> None:
    status, said = ready(InProcess(state=SilentStore))
    assert status == 503
    assert said["unavailable"] == ["store: no answer within a second"]


def test_a_journal_that_cannot_be_written_makes_it_unready_and_says_why(tmp_path: Path) -> None:
    broker = InProcess()
    (tmp_path / "audit").write_text("in the way")
    journal = FileJournal(tmp_path / "audit", 1 << 24, sign=sign)
    broker.app.state.health.journal = journal
    with pytest.raises(Refusal):
        asyncio.run(journal.record(Trail("id", "GET", "/", NOW).event(200)))
    status, said = ready(broker)
    assert status == 503
    assert said["unavailable"][0].startswith("audit journal: ")


def test_a_journal_that_cannot_be_sealed_leaves_it_ready_and_says_why(tmp_path: Path) -> None:
    def no_key(_payload: Mapping[str, object]) -> str:
        raise OSError(errno.EIO, "Input/output error")

    async def story() -> None:
        await journal.record(Trail("id", "GET", "/", NOW).event(200))
        await journal.aclose()

    broker = InProcess()
    journal = FileJournal(tmp_path / "audit", 1 << 24, sign=no_key)
    broker.app.state.health.journal = journal
    asyncio.run(story())
    status, said = ready(broker)
    assert (status, said["status"], said["unavailable"]) == (200, "degraded", [])
    assert said["degraded"] == ["audit journal: segments cannot be sealed: Input/output error"]


def test_documents_that_were_not_adopted_leave_it_ready() -> None:
    broker = InProcess()
    broker.source.refused = (Problem("x.yaml", 3, "D001", Severity.ERROR, "broken"),)
    status, said = ready(broker)
    assert (status, said["status"]) == (200, "degraded")
    assert said["degraded"] == ["documents: the last set was not adopted"]


def test_issuers_without_keys_leave_it_ready_and_are_named() -> None:
    broker = InProcess()
    broker.github.discovery = answering(500)

    async def story(client: httpx2.AsyncClient) -> dict[str, Any]:
        for _ in range(100):
            answer = await client.get("http://localhost:8080/readyz")
            if answer.status_code == 200:
                return dict(answer.json())
            await asyncio.sleep(0.05)
        raise AssertionError(answer.text)

    said = up(broker, story)
    assert said["status"] == "degraded"
    (told,) = said["degraded"]
    assert told.startswith("keys of github: none held; ")


def without_issuers(broker: InProcess, *answers: Callable[..., Any]) -> list[httpx2.Response]:
    """What `/readyz` answers once the issuers were asked, which have *answers* for the broker."""

    async def story(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        for _ in range(100):
            answer = await client.get("http://localhost:8080/readyz")
            if not any("starting" in each for each in answer.json()["unavailable"]):
                return [answer, await client.post("/oauth/token", data=form(broker.job()))]
            await asyncio.sleep(0.05)
        raise AssertionError(answer.text)

    for fake, answer in zip((broker.github, broker.gitlab, broker.idp), answers, strict=True):
        fake.discovery = answer
    return up(broker, story)


def test_without_a_key_of_any_issuer_it_is_not_ready_as_no_exchange_is_answered() -> None:
    broker = InProcess()
    ready_answer, exchanged = without_issuers(broker, *(answering(500),) * 3)
    assert (ready_answer.status_code, ready_answer.json()["status"]) == (503, "unavailable")
    (told,) = ready_answer.json()["unavailable"]
    assert told == "keys: no issuer has a key that can be used, so every token is refused"
    assert len([each for each in ready_answer.json()["degraded"] if "keys of" in each]) == 3
    assert exchanged.status_code == 503


def test_one_issuer_with_keys_is_enough_to_be_ready() -> None:
    broker = InProcess()
    bad = answering(500)
    ready_answer, exchanged = without_issuers(broker, broker.github.good_discovery, bad, bad)
    assert (ready_answer.status_code, ready_answer.json()["status"]) == (200, "degraded")
    assert exchanged.status_code == 200


def test_sets_whose_only_usable_key_is_passed_over_make_it_not_ready_and_say_why() -> None:
    broker = InProcess()
    for fake in (broker.github, broker.gitlab, broker.idp):
        fake.keys = (FakeKey("weak", bits=1024),)
    good = [fake.good_discovery for fake in (broker.github, broker.gitlab, broker.idp)]
    ready_answer, exchanged = without_issuers(broker, *good)
    told = ready_answer.json()
    assert (ready_answer.status_code, told["status"]) == (503, "unavailable")
    assert "weak: RSA key of 1024 bits" in " ".join(told["degraded"])
    assert "1024 bits" in told["issuers"][broker.github.iss]["unusable"]["weak"]
    assert exchanged.status_code != 200


def test_the_keys_that_are_passed_over_are_counted_and_the_first_are_named() -> None:
    broker = InProcess()
    good = broker.github.keys[0]
    odd = [{"kid": f"odd-{number}", "kty": "odd"} for number in range(60)]

    async def key_set(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"keys": [*odd, good.jwk()]})

    broker.github.key_set = key_set
    fakes = (broker.github, broker.gitlab, broker.idp)
    ready_answer, _ = without_issuers(broker, *(fake.good_discovery for fake in fakes))
    told = ready_answer.json()
    assert told["status"] == "ok", "an issuer may publish keys for other purposes"
    keys = told["issuers"][broker.github.iss]
    assert (keys["keys"], keys["unusable_keys"], len(keys["unusable"])) == (1, 60, 20)


def test_a_background_task_that_ends_is_told_and_leaves_it_ready() -> None:
    class Ending(MemoryStore):
        async def run(self) -> None:
            """Return at once, as no background work should."""

    class Failing(MemoryStore):
        async def run(self) -> None:
            raise RuntimeError("hunter2")

    async def story(client: httpx2.AsyncClient) -> dict[str, Any]:
        await asyncio.sleep(0.2)
        return dict((await client.get("http://localhost:8080/readyz")).json())

    for store, kind in ((Ending, "no error"), (Failing, "RuntimeError")):
        with logged() as log:
            said = up(InProcess(state=store), story)
        assert said["status"] == "degraded"
        (told,) = said["degraded"]
        assert told.startswith(f"background task spent and revoked tokens: ended with {kind}; ")
        assert "a background task failed; restart the process" in log.getvalue()


def test_work_that_may_end_and_work_that_is_cancelled_are_no_failures() -> None:
    said = up(InProcess(), lambda client: client.get("http://localhost:8080/readyz"))
    assert said.status_code in {200, 503}
    broker = InProcess()

    async def nothing(_client: httpx2.AsyncClient) -> None:
        await asyncio.sleep(0.2)

    up(broker, nothing)
    up(broker, nothing)  # the lifespan of one application can run again
    assert broker.app.state.health.background.problems == []


def test_the_broker_is_not_ready_before_its_first_key_fetch() -> None:
    broker = InProcess()
    there = asyncio.Event()

    async def slow(request: httpx2.Request) -> httpx2.Response:
        await there.wait()
        return await broker.github.good_discovery(request)

    broker.github.discovery = slow

    async def story(client: httpx2.AsyncClient) -> list[int]:
        await asyncio.sleep(0.1)
        before = await client.get("http://localhost:8080/readyz")
        assert before.json()["unavailable"] == ["starting: the issuers' keys are being fetched"]
        alive = await client.get("/livez")
        there.set()
        await asyncio.sleep(0.1)
        after = await client.get("http://localhost:8080/readyz")
        return [before.status_code, alive.status_code, after.status_code]

    assert up(broker, story) == [503, 200, 200]


def test_a_webhook_that_refuses_events_is_named_with_its_status(tmp_path: Path) -> None:
    broker = InProcess()
    delivery = Delivery(FileJournal(tmp_path, 1024 * 1024, sign=sign), Webhook("http://localhost/"))
    broker.app.state.health.deliveries = [delivery, delivery]
    assert ready(broker)[1]["status"] == "ok"
    delivery.problem = "HTTP 401"
    status, told = ready(broker)
    assert (status, told["status"], told["degraded"]) == (
        200,
        "degraded",
        ["audit webhook: HTTP 401"],
    )


class TestWhoLearnsWhatIsWrong:
    """Details name Roles, values and paths, so only the operator gets them."""

    @staticmethod
    def told(
        peer: tuple[str, int] | None,
        path: str = "/readyz",
        url: str = "http://127.0.0.1:8080",
        **headers: str,
    ) -> Any:
        broker = InProcess()
        broker.source.refused = (Problem("x.yaml", 3, "D001", Severity.ERROR, "broken"),)

        async def story() -> httpx2.Response:
            transport = httpx2.ASGITransport(broker.app, client=peer)  # type: ignore[arg-type]
            async with httpx2.AsyncClient(transport=transport, base_url=url) as client:
                named = {name.replace("_", "-"): value for name, value in headers.items()}
                return await client.get(path, headers=named)

        answer = asyncio.run(story())
        assert answer.status_code == 200
        return answer.json()

    @pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1"])
    def test_a_connection_from_loopback_does(self, peer: str) -> None:
        assert "x.yaml:3" in str(self.told((peer, 1)))

    @pytest.mark.parametrize("peer", ["192.0.2.7", "10.0.0.1", "2001:db8::1", "nonsense"])
    def test_any_other_learns_the_status_alone(self, peer: str) -> None:
        assert self.told((peer, 1)) == {"status": "degraded"}

    def test_one_without_an_address_does_not(self) -> None:
        assert self.told(None) == {"status": "degraded"}

    @pytest.mark.parametrize(
        "header",
        ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip", "via", "x_request_id"],
    )
    def test_one_that_a_proxy_forwarded_does_not(self, header: str) -> None:
        assert self.told(("127.0.0.1", 1), **{header: "192.0.2.7"}) == {"status": "degraded"}

    @pytest.mark.parametrize(
        "url",
        ["http://gateway.example.com", "http://127.0.0.1.example.com", "http://10.0.0.1:8080"],
    )
    def test_one_that_asks_for_another_host_does_not(self, url: str) -> None:
        """A proxy that adds no header passes on the public name, as a rebound browser sends it."""
        assert self.told(("127.0.0.1", 1), url=url) == {"status": "degraded"}

    @pytest.mark.parametrize("url", ["http://localhost:8080", "http://[::1]:8080"])
    def test_the_names_of_loopback_are_as_good(self, url: str) -> None:
        assert "x.yaml:3" in str(self.told(("127.0.0.1", 1), url=url))

    def test_a_query_says_no_more(self) -> None:
        assert self.told(("192.0.2.7", 1), "/readyz?x=y") == {"status": "degraded"}

    def test_liveness_has_no_details(self) -> None:
        assert self.told(("127.0.0.1", 1), "/livez") == {"status": "ok"}


class TestMetricsPort:
    """The readiness at the metrics port, of one process and of several."""

    GOOD: ClassVar[dict[str, Any]] = {"status": "ok", "unavailable": [], "degraded": []}
    BAD: ClassVar[dict[str, Any]] = {"status": "unavailable", "unavailable": ["store: gone"]}

    def test_one_process_says_its_own_report(self) -> None:
        assert readiness({"0": Said(time.monotonic(), self.GOOD)}) == (200, self.GOOD)
        assert readiness({"0": Said(time.monotonic(), self.BAD)}) == (503, self.BAD)

    def test_several_say_the_worst_and_each_its_own(self) -> None:
        now = time.monotonic()
        status, said = readiness({"0": Said(now, self.GOOD), "1": Said(now, self.BAD)})
        assert (status, said["status"]) == (503, "unavailable")
        assert said["workers"] == {"0": self.GOOD, "1": self.BAD}

    def test_one_that_has_not_reported_or_has_stopped_is_not_ready(self) -> None:
        old = Said(time.monotonic() - 20, self.GOOD)
        for reports in ({"0": None}, {"0": old}, {}):
            status, said = readiness(reports)
            assert (status, said["status"]) == (503, "unavailable"), reports

    def test_a_process_that_is_silent_for_long_is_not_alive(self) -> None:
        now = time.monotonic()
        assert liveness({"0": None, "1": Said(now - 20, self.GOOD)})[0] == 200
        assert liveness({"0": Said(now - 40, self.GOOD)})[0] == 503

    def test_reports_of_workers_are_read_from_their_files(self, tmp_path: Path) -> None:
        write_report(tmp_path, 1, self.GOOD)
        (tmp_path / "readiness-2.json").write_text("{")
        reports = read_reports(tmp_path, 3)
        assert reports["0"] is None
        assert reports["1"] is not None
        assert reports["1"].report == self.GOOD
        assert reports["2"] is None
        remove_report(tmp_path, 1)
        assert read_reports(tmp_path, 3)["1"] is None
