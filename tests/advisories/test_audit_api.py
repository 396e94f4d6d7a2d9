"""
Attacks on the trail and on explanations of it.

Whoever may read the documents learns nothing of the trail, and the other way round. What a stranger
writes into a token stays a text, and cannot displace what others did. Nobody makes a read cost more
than a bounded one.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from federation.audit.event import Event, Standing, Trail
from federation.audit.journal import FileJournal
from federation.audit.pages import Cursor, page
from federation.audit.segments import OUTSIDERS
from federation.jose.strict_json import dumps_ascii
from federation.web.api.turns import Turns
from tests.harness.api import AUDIT, EXPLAIN, WHO_CAN, call, refused
from tests.harness.asking import Asking
from tests.harness.builders import GITHUB
from tests.harness.journal_writer import sign

KIB = 1024


@pytest.fixture
def front(tmp_path: Path) -> Asking:
    return Asking(tmp_path)


# -- who may ask


def test_with_audit_read_alone_nothing_is_explained(front: Asking) -> None:
    front.exchange(front.job(ref="refs/heads/other"))
    (event_id,) = front.keep()
    token = front.holding("trail")
    bodies: tuple[Any, ...] = ({"event_id": event_id}, {"claims": {"iss": GITHUB, "sub": "s"}})
    for body in bodies:
        answer = call(front, EXPLAIN, token, json=body)
        assert answer.status_code == 403
        assert answer.text.startswith("Documents:Read on * is ")
        assert "octo-deployer" not in answer.text
    assert call(front, WHO_CAN, token).status_code == 403


def test_with_documents_read_alone_there_is_no_event(front: Asking) -> None:
    front.exchange(front.job(ref="refs/heads/other"))
    (event_id,) = front.keep()
    token = front.holding("documents")
    asked = call(front, EXPLAIN, token, json={"event_id": event_id})
    made_up = call(front, EXPLAIN, token, json={"event_id": "0" * 32})
    for answer in (asked, made_up, call(front, AUDIT, token)):
        assert answer.status_code == 403
        assert answer.text.startswith("Audit:Read on * is ")
        assert event_id not in answer.text
        assert "refs/heads/other" not in answer.text
    # Whether there is such an event is not told either.
    ids = [answer.headers["x-request-id"] for answer in (asked, made_up)]
    assert asked.text.replace(ids[0], "") == made_up.text.replace(ids[1], "")


def test_a_deny_of_the_trail_wins(front: Asking) -> None:
    deny = {"effect": "Deny", "action": ["Audit:Read"], "resource": ["*"], "sid": "no"}
    token = front.grant(("*", "*"), deny)
    assert call(front, AUDIT, token).status_code == 403
    assert call(front, EXPLAIN, token, json={"event_id": "0" * 32}).status_code == 403


def test_who_asks_is_in_the_trail_also_when_it_is_refused(front: Asking) -> None:
    call(front, AUDIT, front.holding("documents"))
    call(front, EXPLAIN, front.holding("trail"))
    assert [event.response_code for event in front.journal.events] == [403, 403]
    assert all(event.owed for event in front.journal.events)


# -- what strangers write


MARKUP = (
    "<script src=//evil.example></script><img onerror=x>\"'&\u202e\u2028\x1b[2J\x00\r\n##[x]::add::"
)


def test_markup_and_control_characters_stay_the_text_of_a_claim(front: Asking) -> None:
    hostile: dict[str, Any] = {"ref": MARKUP, "workflow": MARKUP, MARKUP: {MARKUP: [MARKUP]}}
    assert front.exchange(front.job(**hostile)).status_code == 400
    (event_id,) = front.keep()
    told = front.explained(event_id=event_id)
    assert told["claims"]["ref"] == MARKUP
    assert told["claims"][MARKUP] == {MARKUP: [MARKUP]}
    assert all(char.isprintable() or char == "\n" for char in told["rule"])
    assert MARKUP not in told["rule"]
    for answer in (
        call(front, EXPLAIN, front.holding("documents", "trail"), json={"event_id": event_id}),
        call(front, AUDIT, front.holding("trail")),
    ):
        assert answer.headers["content-type"] == "application/json"
        assert b"\x1b" not in answer.content
        assert b"\n" not in answer.content


def test_the_line_of_an_event_is_one_line_of_ascii(front: Asking) -> None:
    front.exchange(front.job(workflow=MARKUP, **{MARKUP: MARKUP}))
    front.keep()
    (segment,) = front.trail.glob("*.jsonl")
    text = segment.read_bytes()
    assert text.isascii()
    assert text.count(b"\n") == 2, "the header and the event"


def test_a_claim_cannot_pass_for_a_member_of_the_event(front: Asking) -> None:
    forged: dict[str, Any] = {
        "event_id": "0" * 32,
        "reason": None,
        "response_code": 200,
        "actor": {"sub": "fed:a"},
    }
    front.exchange(front.job(ref="refs/heads/other", **forged))
    (event_id,) = front.keep()
    (event,) = front.events()["events"]
    assert event["event_id"] == event_id
    assert (event["reason"], event["response_code"]) == ("no_role_admits", 400)
    answer = call(front, EXPLAIN, front.holding("documents", "trail"), json={"event_id": "0" * 32})
    assert "no such event" in refused(answer, 400)["error_description"]


def test_claims_as_large_as_a_token_may_be_are_bounded_and_told(front: Asking) -> None:
    for claims in (
        {"workflow": "x" * 9000},
        {f"repo_property_{n}": "é" for n in range(280)},
        {"workflow": ["\U0001d4b3"] * 600},
        {"workflow": "x" * 4000, "environment": "y" * 5000},
    ):
        given: dict[str, Any] = {"ref": "refs/heads/other", **claims}
        assert front.exchange(front.job(**given)).json()["reason"] == "no_role_admits"
        (event,) = front.journal.events
        assert len(dumps_ascii(event.claims)) <= 8 * KIB
        assert len(dumps_ascii(event.as_json())) <= 20 * KIB
        (event_id,) = front.keep()
        told = front.explained(event_id=event_id)
        if event.claims_cut:
            assert any("too large to keep" in note for note in told["notes"])
        else:
            assert told["claims"].items() >= given.items()
        front.journal.events.clear()


def test_an_explanation_of_hostile_claims_is_an_answer(front: Asking) -> None:
    deep: Any = "x"
    for _ in range(28):
        deep = [deep]
    for claims in (
        {"iss": GITHUB, "sub": "s", "aud": deep},
        {"iss": [GITHUB], "sub": {}, "aud": [[]]},
        {"iss": GITHUB, "sub": "s" * 50_000},
        {"iss": GITHUB, "sub": "s", "exp": 10**60, "iat": -1, "nbf": 1e300},
        {"": "", "iss": "\x00", "sub": "\x00"},
    ):
        assert not front.explained(claims=claims)["admitted"]


# -- what events may displace


def event_with(claims: dict[str, object], standing: Standing) -> Event:
    trail = Trail("r", "POST", "/oauth/token", 1.0, standing, claims=claims)
    return trail.event(400)


def test_large_claims_of_outsiders_displace_no_event_that_is_owed(tmp_path: Path) -> None:
    size = 256 * KIB

    async def flooded() -> str:
        owed = FileJournal(tmp_path, size, sign=sign)
        outsiders = FileJournal(tmp_path / OUTSIDERS, size, sign=sign, owed=False)
        first = event_with({"iss": "i"}, Standing.ADMITTED)
        await owed.record(first)
        for _ in range(200):
            event = event_with({"big": "x" * 8000}, Standing.OUTSIDER)
            assert not event.owed
            await outsiders.record(event)
        await asyncio.gather(owed.aclose(), outsiders.aclose())
        return first.event_id

    kept = asyncio.run(flooded())
    used = sum(path.stat().st_size for path in (tmp_path / OUTSIDERS).glob("*.jsonl"))
    assert used <= size + 64 * KIB
    cursor, found = Cursor("t"), list[object]()
    while True:
        got = page(tmp_path, cursor, 200, lambda _: True)
        found += [event["event_id"] for event in got.events]
        if got.next is None:
            break
        cursor = Cursor.of(got.next, "t")
    assert kept in found
    assert len(found) < 100, "outsiders displaced each other"


def test_a_job_cannot_make_an_owed_event_larger_than_a_bound(front: Asking) -> None:
    assert front.exchange(front.job(workflow="x" * 9000)).status_code == 200
    (event,) = front.journal.events
    assert event.owed
    assert event.claims_cut == ("workflow",)
    assert len(dumps_ascii(event.as_json())) < 6 * KIB


# -- what a read may cost


def test_ten_thousand_events_are_read_by_pages_without_holding_up_others(tmp_path: Path) -> None:
    front = Asking(tmp_path)

    async def written() -> None:
        journal = FileJournal(front.trail, 512 * KIB * KIB, sign=sign)
        made = [
            event_with({"iss": "i", "n": str(n) * 40}, Standing.ADMITTED) for n in range(10_000)
        ]
        for start in range(0, len(made), 500):
            await asyncio.gather(*map(journal.record, made[start : start + 500]))
        await journal.aclose()

    asyncio.run(written())
    token = front.holding("trail")

    async def read(client: httpx2.AsyncClient) -> tuple[int, float]:
        headers = {"authorization": f"Bearer {token}"}
        count, before, longest = 0, "", 0.0
        done = asyncio.Event()

        async def beat() -> float:
            loop, slowest = asyncio.get_running_loop(), 0.0
            while not done.is_set():
                began = loop.time()
                await asyncio.sleep(0.005)
                slowest = max(slowest, loop.time() - began)
            return slowest

        heart = asyncio.create_task(beat())
        while True:
            answer = await client.get(f"{AUDIT}?limit=200{before}", headers=headers)
            told = answer.json()
            count += len(told["events"])
            assert len(answer.content) < 2 * KIB * KIB
            if told["next"] is None:
                break
            before = f"&before={told['next']}"
        done.set()
        longest = await heart
        return count, longest

    count, longest = front.tell(read)
    assert count == 10_000
    assert longest < 1.0


def test_few_reads_run_at_once_and_a_caller_who_leaves_gives_its_turn_back() -> None:
    running = most = 0

    async def story() -> None:
        turns, loop, go = Turns(), asyncio.get_running_loop(), asyncio.Event()
        loop.set_default_executor(ThreadPoolExecutor(20))

        def work() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)
            running -= 1

        waiting = [asyncio.create_task(turns.run(str(number), work)) for number in range(12)]
        await asyncio.sleep(0.05)
        assert running == 2
        for task in waiting[:6]:
            task.cancel()
        await asyncio.sleep(0.05)
        assert running == 2, "the threads of those who left still have their turn"
        go.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        await turns.run("another", lambda: None)

    asyncio.run(story())
    assert most == 2
    assert running == 0


def test_a_caller_who_asks_without_end_keeps_nobody_waiting() -> None:
    async def story() -> None:
        turns, loop, go = Turns(), asyncio.get_running_loop(), asyncio.Event()
        loop.set_default_executor(ThreadPoolExecutor(20))

        def work() -> None:
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result(10)

        greedy = [asyncio.create_task(turns.run("mallory", work)) for _ in range(50)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            assert await turns.run("alice", lambda: 1) == 1
        for task in greedy[:25]:
            task.cancel()
        go.set()
        await asyncio.gather(*greedy, return_exceptions=True)
        async with asyncio.timeout(2):
            assert await turns.run("mallory", lambda: 2) == 2

    asyncio.run(story())


def test_no_path_and_no_name_of_a_file_is_shown(front: Asking) -> None:
    for _ in range(5):
        front.exchange(front.job(ref="refs/heads/other"))
    front.keep()
    (segment,) = (front.trail / OUTSIDERS).glob("*.jsonl")
    answer = call(front, AUDIT, front.holding("trail"), query="?limit=1")
    told = answer.json()
    shown = json.dumps(told)
    assert told["next"]
    for name in (segment.name, segment.stem, segment.stem.rpartition("-")[2], str(front.trail)):
        assert name not in shown
    segment.chmod(0)
    segment.unlink()
    assert call(front, AUDIT, front.holding("trail")).status_code == 200


@pytest.mark.parametrize(
    "damage", [b"", b"\n", b"\xff" * 5000, b"[" * 5000 + b"\n", b'{"event_id":1}\n', b"{}\n" * 900]
)
def test_a_damaged_segment_is_no_fault(front: Asking, damage: bytes) -> None:
    front.exchange(front.job())
    (event_id,) = front.keep()
    (segment,) = front.trail.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(damage)
    shown = [event["event_id"] for event in front.events()["events"]]
    assert event_id in shown
    assert front.explained(event_id=event_id)["admitted"]
