"""Pages of the trail: the newest first, over all workers and both parts, while it grows."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from federation.audit import pages
from federation.audit.backwards import Backwards
from federation.audit.event import Standing, Trail
from federation.audit.journal import FileJournal
from federation.audit.pages import Cursor, Page, find, page
from federation.audit.read import StoredEvent
from federation.audit.segments import OUTSIDERS, Lock, Stored, fresh_process, stored
from tests.harness.journal_writer import sign

MIB = 1024 * 1024


def everything(_: StoredEvent) -> bool:
    return True


class Worker:
    """A process that appends to a journal, as far as its readers can tell."""

    def __init__(self, folder: Path, opened: int, process: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.process = process or fresh_process()
        self.path = folder / f"{opened:020d}-{self.process}.jsonl"
        header = {"journal": 1, "process": self.process, "deliver": False, "follows": None,
                  "newest_seal": 0}  # fmt: skip
        self.path.write_text(json.dumps(header) + "\n", "utf-8")

    def living(self) -> Lock:
        lock = Lock.take(self.folder, self.process)
        assert lock is not None
        return lock

    def record(self, number: int, seconds: float, **more: object) -> str:
        """Append the event *number* of this time. Return its id."""
        trail = Trail(f"r{number}", "POST", "/oauth/token", seconds)
        event = {**trail.event(200).as_json(), "event_id": f"{number:032x}", **more}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, separators=(",", ":")) + "\n")
        return str(event["event_id"])


def read(folder: Path, limit: int = 10, cursor: Cursor | None = None,
         wanted: Callable[[StoredEvent], bool] = everything) -> Page:  # fmt: skip
    return page(folder, cursor or Cursor("t"), limit, wanted)


def all_pages(folder: Path, limit: int, between: Callable[[], object] = lambda: None) -> list[str]:
    """The ids of all events, page by page, with *between* called after each page."""
    found: list[str] = []
    cursor: Cursor | None = None
    for _ in range(1000):
        got = read(folder, limit, cursor)
        assert len(got.events) <= limit
        found += [str(event["event_id"]) for event in got.events]
        if got.next is None:
            return found
        cursor = Cursor.of(got.next, "t")
        between()
    raise AssertionError("there is no end")


def ids(*numbers: int) -> list[str]:
    return [f"{number:032x}" for number in numbers]


def test_a_trail_without_events_has_one_empty_page(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == Page([], None)
    Worker(tmp_path, 1)
    assert read(tmp_path) == Page([], None)


def test_workers_and_outsiders_are_merged_by_time(tmp_path: Path) -> None:
    one, two = Worker(tmp_path, 1), Worker(tmp_path, 2)
    outside = Worker(tmp_path / OUTSIDERS, 3)
    for number, worker in enumerate([one, outside, two, one, outside, two, two]):
        worker.record(number, 100 + number)
    assert all_pages(tmp_path, 100) == ids(*range(6, -1, -1))
    assert all_pages(tmp_path, 1) == ids(*range(6, -1, -1))


def test_events_of_a_real_journal_are_found(tmp_path: Path) -> None:
    async def recorded() -> list[str]:
        journal = FileJournal(tmp_path, 16 * MIB, sign=sign)
        outsiders = FileJournal(tmp_path / OUTSIDERS, MIB, sign=sign, owed=False)
        made = []
        for number in range(6):
            trail = Trail(f"r{number}", "POST", "/oauth/token", 100 + number, Standing.ADMITTED)
            event = trail.event(200)
            await (outsiders if number % 2 else journal).record(event)
            made.append(event.event_id)
        await asyncio.gather(journal.aclose(), outsiders.aclose())
        return made

    made = asyncio.run(recorded())
    assert all_pages(tmp_path, 4) == made[::-1]
    for event_id in made:
        found = find(tmp_path, event_id)
        assert found is not None
        assert found["event_id"] == event_id


def test_new_events_change_no_later_page(tmp_path: Path) -> None:
    workers = [Worker(tmp_path, n) for n in range(3)] + [Worker(tmp_path / OUTSIDERS, 9)]
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker.living())
        for number in range(40):
            workers[number % 3].record(number, 1000 + number)  # the outsiders' is idle
        workers[3].record(100, 5)
        rng, count = Random(1), iter(range(1000, 10_000))  # noqa: S311

        def grow() -> None:
            for _ in range(rng.randint(0, 4)):
                number = next(count)
                # Slow requests are recorded late, with the time at which they came.
                rng.choice(workers).record(number, rng.choice([5000 + number, 1020, 3]))
            if rng.random() < 0.5:
                late = Worker(tmp_path, 50 + next(count))
                late.record(next(count), 9000)
                stack.enter_context(late.living())
            if rng.random() < 0.5:  # a process goes on in another segment
                later = Worker(tmp_path, 50 + next(count), workers[rng.randint(0, 2)].process)
                later.record(next(count), rng.choice([3, 9000]))

        assert all_pages(tmp_path, 7, grow) == ids(*range(39, -1, -1), 100)


@pytest.mark.parametrize("seed", range(25))
def test_no_page_repeats_or_leaves_out_an_event(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)  # noqa: S311
    made: list[str] = []
    with ExitStack() as stack:
        living, number = [], 0
        for opened in range(rng.randint(1, 12)):
            part = tmp_path / OUTSIDERS if rng.random() < 0.3 else tmp_path
            worker = Worker(part, opened)
            start = rng.choice([100, 100, 200, 1000])
            for step in range(rng.randint(0, 12)):
                # Times within a segment are not in order: requests take different times.
                worker.record(number, start + step + rng.choice([0, 0, -5, 8]))
                made.append(f"{number:032x}")
                number += 1
            if rng.random() < 0.4:
                stack.enter_context(worker.living())
                living.append(worker)
        count = iter(range(10**6, 10**7))

        def grow() -> None:
            for worker in living:
                if rng.random() < 0.5:
                    worker.record(next(count), rng.choice([50.0, 150.0, 9000.0]))

        found = all_pages(tmp_path, rng.randint(1, 9), grow)
    assert sorted(found) == sorted(made)
    assert len(set(found)) == len(found)


def test_a_segment_that_is_dropped_meanwhile_is_passed_over(tmp_path: Path) -> None:
    old, new = Worker(tmp_path, 1), Worker(tmp_path, 2)
    for number in range(5):
        old.record(number, 100 + number)
        new.record(10 + number, 200 + number)
    first = read(tmp_path, 3)
    assert first.next
    old.path.unlink()
    rest = read(tmp_path, 50, Cursor.of(first.next, "t"))
    assert [e["event_id"] for e in rest.events] == ids(11, 10)
    assert rest.next is None


def test_half_a_line_and_lines_that_are_no_event_are_passed_over(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 1)
    worker.record(1, 100)
    with worker.path.open("ab") as file:
        file.write(b"not json\n[]\n{}\n\xff\xfe\n" + b'{"x":' * 2000 + b"\n")
    worker.record(2, 101)
    with worker.path.open("ab") as file:
        file.write(b'{"event_id":"half')
    assert all_pages(tmp_path, 1) == ids(2, 1)


def test_what_a_segment_never_acknowledged_is_left_out(tmp_path: Path) -> None:
    first = Worker(tmp_path, 1)
    first.record(1, 100)
    end = first.path.stat().st_size
    first.record(2, 101)
    after = Worker(tmp_path, 2, first.process)
    header = {"journal": 1, "deliver": False, "newest_seal": 0,
              "follows": {"segment": first.path.name, "bytes": end}}  # fmt: skip
    after.path.write_text(json.dumps(header) + "\n", "utf-8")
    after.record(3, 102)
    assert all_pages(tmp_path, 10) == ids(3, 1)
    assert find(tmp_path, ids(2)[0]) is None


def test_only_the_wanted_events_are_on_a_page(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 1)
    for number in range(100):
        worker.record(number, 100 + number, reason="expired" if number % 10 == 0 else None)
    got = read(tmp_path, 4, wanted=lambda event: event["reason"] is not None)
    assert [e["event_id"] for e in got.events] == ids(90, 80, 70, 60)
    assert got.next
    rest = read(tmp_path, 100, Cursor.of(got.next, "t"), lambda e: e["reason"] is not None)
    assert [e["event_id"] for e in rest.events] == ids(50, 40, 30, 20, 10, 0)
    assert rest.next is None


# -- bounded work


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of 12 MiB, whose events have 1 KiB."""
    folder = tmp_path_factory.mktemp("large")
    worker = Worker(folder, 1)
    with worker.path.open("a", encoding="utf-8") as file:
        for number in range(12 * 1024):
            trail = Trail("r", "POST", "/oauth/token", 1000 + number)
            event = {**trail.event(200).as_json(), "event_id": f"{number:032x}", "x": "y" * 600}
            file.write(json.dumps(event, separators=(",", ":")) + "\n")
    return folder


def test_a_page_reads_a_few_mib_at_most_and_leads_on(large: Path) -> None:
    seen: list[str] = []

    def rare(event: StoredEvent) -> bool:
        seen.append(str(event["event_id"]))
        return str(event["event_id"]) == f"{5:032x}"

    found: list[Any] = []
    cursor: Cursor | None = None
    for _ in range(10):
        before = len(seen)
        got = read(large, 50, cursor, rare)
        found += got.events
        assert len(seen) - before < 6 * 1024
        if got.next is None:
            break
        assert not got.events or got.next
        cursor = Cursor.of(got.next, "t")
    assert [event["event_id"] for event in found] == ids(5)
    assert len(seen) == len(set(seen)) == 12 * 1024


def test_an_old_event_is_found_and_one_that_is_not_there_is_not(large: Path) -> None:
    for number in (0, 1, 6000, 12 * 1024 - 1):
        found = find(large, f"{number:032x}")
        assert found is not None
        assert found["event_id"] == f"{number:032x}"
    assert find(large, "f" * 32) is None


def test_a_search_ends_after_its_share_of_the_journal(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_SEARCHED_BYTES", 2 * MIB)
    assert find(large, f"{12 * 1024 - 1:032x}") is not None
    assert find(large, f"{0:032x}") is None


def test_a_text_in_a_claim_is_not_the_id_of_an_event(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 1)
    worker.record(1, 100)
    worker.record(2, 101, claims={"event_id": f"{1:032x}", "iss": "hostile"})
    found = find(tmp_path, f"{1:032x}")
    assert found is not None
    assert "claims" not in found


def test_a_large_event_is_read_whole(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 1)
    worker.record(1, 100, x="y" * 900_000)
    worker.record(2, 101)
    assert all_pages(tmp_path, 5) == ids(2, 1)


def test_the_events_of_a_page_are_bounded(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 1)
    for number in range(8):
        worker.record(number, 100 + number, x="y" * 400_000)
    assert len(read(tmp_path, 100).events) == 3
    assert all_pages(tmp_path, 100) == ids(*range(7, -1, -1))


# -- cursors


def test_a_cursor_shows_no_name_of_a_file(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 1)
    for number in range(5):
        worker.record(number, 100 + number)
    with worker.living():
        text = read(tmp_path, 1).next
    assert text
    plain = base64.urlsafe_b64decode(text + "==").decode()
    assert worker.process not in plain
    assert worker.process.partition("-")[0] not in json.loads(plain)[2]
    assert str(tmp_path) not in plain


@pytest.mark.parametrize(
    "text",
    ["", "x", "!!", "bnVsbA", "W10", "é", "A" * 20_000,
     "WyJ0IiwgWzEsICJhIl0sIHsiYSI6IC0xfV0", "WyJ0IiwgWzEsICJhIl0sIHsiYSI6ICJ4In1d",
     "WyJ0IiwgWzEsICJhIl0sIHsiYSI6IHRydWV9XQ", "WyJ0IiwgWyJ4IiwgImEiXSwge31d"],
)  # fmt: skip
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  any kind of it becomes one refusal
        Cursor.of(text, "t")


def test_a_cursor_of_another_replica_is_refused(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 1)
    for number in range(3):
        worker.record(number, 100 + number)
    text = read(tmp_path, 1).next
    assert text
    with pytest.raises(ValueError, match="another replica"):
        Cursor.of(text, "u")


@pytest.mark.parametrize("position", [0, 1, 50, 333, 10**9, 10**18])
def test_a_cursor_with_made_up_positions_reads_whole_events_only(
    tmp_path: Path, position: int
) -> None:
    worker = Worker(tmp_path, 1)
    for number in range(5):
        worker.record(number, 100 + number, claims={"x": '{"event_id":"made up"}'})
    size = worker.path.stat().st_size
    name = Backwards(Stored(worker.path, worker.process, size, latest=True), 0, size).id
    got = read(tmp_path, 50, Cursor("t", None, {name: position}))
    assert {str(event["event_id"]) for event in got.events} <= set(ids(*range(5)))


def test_the_harness_writes_segments_as_the_journal_does(tmp_path: Path) -> None:
    worker = Worker(tmp_path, 7)
    (segment,) = stored(tmp_path)
    assert (segment.path, segment.process) == (worker.path, worker.process)
