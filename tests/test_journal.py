"""An event is on disk before the answer leaves, or the request is refused."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.audit.event import Event, Trail
from federation.audit.journal import FileJournal, fdatasync
from federation.audit.segments import Lock, cursor_of, set_cursor, stored
from federation.errors import Reason, Refusal
from tests.harness.journal_writer import CALLERS, SIZE, event, examine, recorded, recorder, sign

SMALL = 64 * 1024


class Disk:
    """An fsync that can be made to fail, and counts its calls."""

    def __init__(self) -> None:
        self.failure: OSError | None = None
        self.syncs = 0

    def __call__(self, descriptor: int) -> None:
        self.syncs += 1
        if self.failure:
            raise self.failure
        fdatasync(descriptor)


def record(journal: FileJournal, *events: Event) -> None:
    """Record *events* one after the other, then close the journal."""

    async def story() -> None:
        for each in events:
            await journal.record(each)
        await journal.aclose()

    asyncio.run(story())


def lines(folder: Path) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for segment in stored(folder)
        for line in segment.path.read_bytes().splitlines()
    ]


# What is written


def test_a_line_is_the_event(tmp_path: Path) -> None:
    one = event()
    record(FileJournal(tmp_path, SIZE, sign=sign), one)
    header, line = lines(tmp_path)
    assert header["journal"] == 1
    assert line == json.loads(json.dumps(one.as_json()))


@pytest.mark.parametrize(
    "text", ["\u2028", "\u2029", "\x85", "\u00e9", "\U0001f680", "\n", "\r"], ids=ascii
)
def test_an_event_is_one_line_of_ascii_whatever_its_text(tmp_path: Path, text: str) -> None:
    one = event(roles=(f"a{text}b",))
    record(FileJournal(tmp_path, SIZE, sign=sign), one)
    (segment,) = stored(tmp_path)
    content = segment.path.read_bytes()
    assert content.isascii()
    assert len(content.decode("ascii").splitlines()) == 2, "the header and the event"
    assert lines(tmp_path)[1]["roles"] == [f"a{text}b"]


def test_the_journal_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "audit"
    record(FileJournal(folder, SIZE, sign=sign), event())
    (segment,) = stored(folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert segment.path.stat().st_mode & 0o077 == 0


def test_concurrent_callers_share_one_sync(tmp_path: Path) -> None:
    disk = Disk()
    journal = FileJournal(tmp_path, SIZE, sync=disk, sign=sign)

    async def story() -> None:
        await journal.record(event())
        before = disk.syncs
        await asyncio.gather(*(journal.record(event(n)) for n in range(100)))
        assert disk.syncs - before <= 2
        await journal.aclose()

    asyncio.run(story())
    assert len(recorded(tmp_path)) == 101


def test_an_event_is_on_disk_before_record_returns(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, SIZE, sign=sign)

    async def story() -> None:
        for number in range(3):
            one = event(number)
            await journal.record(one)
            assert recorded(tmp_path)[-1] == one.event_id
        await journal.aclose()

    asyncio.run(story())


def test_two_processes_never_share_a_segment(tmp_path: Path) -> None:
    first, second = FileJournal(tmp_path, SIZE, sign=sign), FileJournal(tmp_path, SIZE, sign=sign)

    async def story() -> None:
        await asyncio.gather(*(j.record(event(n)) for n in range(20) for j in (first, second)))
        assert len(stored(tmp_path)) == 2
        await first.aclose()
        await second.aclose()

    asyncio.run(story())
    assert len(recorded(tmp_path)) == 40
    assert examine(tmp_path).whole


def test_a_new_segment_follows_the_one_before(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, SMALL, sign=sign)
    record(journal, *(event(n) for n in range(50)))
    assert len(stored(tmp_path)) > 2
    assert examine(tmp_path).whole
    assert examine(tmp_path).events == 50
    assert examine(tmp_path).findings == []


def test_a_journal_that_recorded_nothing_leaves_nothing(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "audit", SIZE, sign=sign)

    async def story() -> None:
        running = asyncio.create_task(journal.run())
        await asyncio.sleep(0.1)
        assert journal.status().problem is None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    asyncio.run(story())
    assert list((tmp_path / "audit").iterdir()) == []


def test_a_closed_journal_refuses(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, SIZE, sign=sign)
    record(journal)
    with pytest.raises(Refusal) as caught:
        asyncio.run(journal.record(event()))
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE


def test_an_event_that_is_too_large_is_refused_alone(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, SIZE, sign=sign)

    async def story() -> None:
        with pytest.raises(Refusal):
            await journal.record(event()._replace(policies=("p" * 1024,) * 2000))
        await journal.record(event())
        await journal.aclose()

    asyncio.run(story())
    assert len(recorded(tmp_path)) == 1


# Faults of the disk


def test_a_failed_sync_refuses_each_caller_and_leaves_no_trace(
    tmp_path: Path,
) -> None:
    disk = Disk()
    journal = FileJournal(tmp_path, SIZE, sync=disk, sign=sign)
    kept, refused = [event(n) for n in range(4)], [event(n) for n in range(10, 20)]

    async def story() -> None:
        await asyncio.gather(*map(journal.record, kept[:2]))
        disk.failure = OSError(errno.EIO, "Input/output error")
        answers = await asyncio.gather(*map(journal.record, refused), return_exceptions=True)
        assert [getattr(answer, "reason", None) for answer in answers] == ["audit_unavailable"] * 10
        disk.failure = None
        await asyncio.gather(*map(journal.record, kept[2:]))
        await journal.aclose()

    asyncio.run(story())
    assert recorded(tmp_path) == [one.event_id for one in kept]
    assert len(stored(tmp_path)) == 2, "a segment that could not be synced is not trusted again"
    report = examine(tmp_path)
    assert report.whole
    assert report.findings == []


def test_readers_leave_out_what_could_not_be_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    journal = FileJournal(tmp_path, SIZE, sync=disk, sign=sign)
    kept, refused = [event(1), event(2)], event(3)

    def unable(*_args: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def story() -> None:
        await journal.record(kept[0])
        disk.failure = OSError(errno.EIO, "Input/output error")
        with monkeypatch.context() as broken:
            broken.setattr(os, "ftruncate", unable)
            with pytest.raises(Refusal):
                await journal.record(refused)
        disk.failure = None
        await journal.record(kept[1])
        await journal.aclose()

    asyncio.run(story())
    assert refused.event_id in stored(tmp_path)[0].path.read_text()
    assert recorded(tmp_path) == [one.event_id for one in kept]
    report = examine(tmp_path)
    assert report.whole
    assert ["never acknowledged" in f.message for f in report.findings] == [True]


def test_a_long_failure_leaves_only_two_segments(tmp_path: Path) -> None:
    disk = Disk()
    journal = FileJournal(tmp_path, SIZE, sync=disk, sign=sign)

    async def story() -> None:
        await journal.record(event())
        disk.failure = OSError(errno.ENOSPC, "No space left on device")
        for _ in range(20):
            with pytest.raises(Refusal):
                await journal.record(event())
        disk.failure = None
        await journal.record(event())
        await journal.aclose()

    asyncio.run(story())
    assert len(stored(tmp_path)) == 2
    assert examine(tmp_path).whole


def test_a_journal_recovers_without_a_request(tmp_path: Path) -> None:
    disk = Disk()
    disk.failure = OSError(errno.ENOSPC, "No space left on device")
    journal = FileJournal(tmp_path, SIZE, sync=disk, sign=sign)

    async def story() -> None:
        running = asyncio.create_task(journal.run())
        await until(lambda: journal.status().problem == "No space left on device")
        with pytest.raises(Refusal):
            journal.check()
        disk.failure = None
        await until(lambda: journal.status().problem is None)
        journal.check()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    asyncio.run(story())


@pytest.mark.parametrize("at_the_start", [True, False], ids=["at the start", "later"])
def test_a_disk_that_does_not_answer_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_the_start: bool
) -> None:
    monkeypatch.setattr("federation.audit.journal._STUCK_SECONDS", 0.2)
    answers = threading.Event()

    def slow(descriptor: int) -> None:
        answers.wait(20)
        fdatasync(descriptor)

    journal = FileJournal(tmp_path, SIZE, sync=slow, sign=sign)

    async def story() -> None:
        if not at_the_start:
            answers.set()
            await journal.record(event(1))
            answers.clear()
            assert journal.status().problem is None
        running = asyncio.create_task(journal.run())
        recording = asyncio.create_task(journal.record(event(2)))
        await until(lambda: "the disk has not answered for" in (journal.status().problem or ""))
        answers.set()
        await recording
        await until(lambda: journal.status().problem is None)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    asyncio.run(story())


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to that")


async def fill(journal: FileJournal, kept: list[str]) -> None:
    """Record events until one is refused, and add the others to *kept*."""
    for number in range(1000):
        await journal.record(one := event(number))
        kept.append(one.event_id)


@pytest.mark.parametrize("harm", ["removed", "cut", "lengthened", "whole folder"])
def test_a_segment_that_was_changed_from_outside_is_closed(tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "audit"
    journal = FileJournal(folder, SIZE, sign=sign)
    after = event(2)

    async def story() -> None:
        await journal.record(event(1))
        (segment,) = stored(folder)
        if harm == "removed":
            segment.path.unlink()
        elif harm == "cut":
            os.truncate(segment.path, segment.size - 5)
        elif harm == "lengthened":
            with segment.path.open("ab") as file:
                file.write(b"{}\n")
        else:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
        await journal.record(after)
        await journal.aclose()

    asyncio.run(story())
    assert recorded(folder)[-1] == after.event_id
    assert examine(folder).whole == (harm == "lengthened")


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def test_a_folder_that_is_removed_again_and_again_costs_no_open_files(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "audit", SIZE, sign=sign)

    async def story() -> list[int]:
        files = []
        for number in range(6):
            await journal.record(event(number))
            files.append(open_files())
            shutil.rmtree(tmp_path / "audit")
        await journal.aclose()
        return files

    files = asyncio.run(story())
    assert max(files) == files[0], files  # those of earlier tests may be closed meanwhile


def test_a_folder_that_cannot_be_made_refuses(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file")
    journal = FileJournal(tmp_path / "audit", SIZE, sign=sign)
    with pytest.raises(Refusal) as caught:
        record(journal, event())
    assert caught.value.reason is Reason.AUDIT_UNAVAILABLE


def test_a_partial_write_spoils_no_other_line(tmp_path: Path) -> None:
    with recorder(tmp_path, "--file-bytes", "100000") as process:
        assert process.stdout is not None
        said = [process.stdout.readline().rstrip("\n") for _ in range(600)]
    acknowledged = [line for line in said if not line.startswith("refused")]
    assert any(line == "refused File too large" for line in said)
    assert set(acknowledged) <= set(recorded(tmp_path))
    assert len(stored(tmp_path)) > 2
    assert examine(tmp_path).whole


@pytest.mark.e2e
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/bin/mount").exists(),
    reason="a small file system must be mounted",
)
def test_a_full_disk_refuses_until_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False).returncode:  # noqa: S603  our own words
        pytest.skip("this system does not let us mount")
    try:
        journal = FileJournal(small / "audit", SIZE, sign=sign)
        ballast = small / "ballast"
        kept: list[str] = []

        async def story() -> None:
            ballast.write_bytes(b"x" * 100_000)
            with pytest.raises(Refusal) as caught:
                await fill(journal, kept)
            assert caught.value.evidence["journal"] == "No space left on device"
            assert journal.status().nearly_full
            ballast.unlink()
            await journal.record(one := event())
            kept.append(one.event_id)
            await journal.aclose()

        asyncio.run(story())
        assert recorded(small / "audit") == kept
        assert examine(small / "audit").whole
    finally:
        subprocess.run(["/bin/umount", str(small)], check=True)  # noqa: S603  our own words


# Bounds


def test_without_a_webhook_the_oldest_segments_are_dropped(tmp_path: Path) -> None:
    many = [event(n) for n in range(400)]
    record(FileJournal(tmp_path, SMALL, sign=sign), *many)
    assert sum(segment.size for segment in stored(tmp_path)) <= SMALL
    kept = recorded(tmp_path)
    assert 50 < len(kept) < 400
    assert kept == [one.event_id for one in many][-len(kept) :]
    assert examine(tmp_path).whole


def test_undelivered_events_are_never_dropped(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, SMALL, deliver=True, sign=sign)
    kept: list[str] = []

    async def story() -> None:
        with pytest.raises(Refusal) as caught:
            await fill(journal, kept)
        assert "webhook has not taken" in str(caught.value.evidence["journal"])
        status = journal.status()
        assert (status.undelivered_events, status.nearly_full) == (len(kept), True)
        assert recorded(tmp_path) == kept

        oldest = stored(tmp_path)[0]
        set_cursor(oldest.path, oldest.size)
        await journal.record(event(1000))
        assert not oldest.path.exists()
        assert cursor_of(oldest.path) == 0, "its cursor goes with it"
        await journal.aclose()

    asyncio.run(story())


def test_events_recorded_without_a_webhook_are_not_delivered_later(tmp_path: Path) -> None:
    record(FileJournal(tmp_path, SMALL, sign=sign), *(event(n) for n in range(100)))
    journal = FileJournal(tmp_path, SMALL, deliver=True, sign=sign)

    async def story() -> None:
        await journal.record(event())
        assert journal.status().undelivered_events == 1
        await journal.aclose()

    asyncio.run(story())


def test_the_segment_that_another_process_writes_to_is_never_dropped(tmp_path: Path) -> None:
    idle, busy = FileJournal(tmp_path, SMALL, sign=sign), FileJournal(tmp_path, SMALL, sign=sign)
    first, later = event(1), event(2)

    async def story() -> None:
        await idle.record(first)
        for number in range(300):
            await busy.record(event(number))
        await idle.record(later)
        await idle.aclose()
        await busy.aclose()

    asyncio.run(story())
    assert {first.event_id, later.event_id} <= set(recorded(tmp_path))


def test_many_workers_share_the_bound(tmp_path: Path) -> None:
    journals = [FileJournal(tmp_path, SMALL, workers=4, sign=sign) for _ in range(4)]

    async def story() -> None:
        for _ in range(100):
            await asyncio.gather(*(journal.record(event()) for journal in journals))
        for journal in journals:
            await journal.aclose()

    asyncio.run(story())
    # Each worker counts the others' segments once a second, or when it reaches the bound itself.
    assert sum(segment.size for segment in stored(tmp_path)) < SMALL * 4
    assert examine(tmp_path).whole


def test_the_status_counts_undelivered_events(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, SIZE, deliver=True, clock=lambda: 1_800_000_100.0, sign=sign)

    async def story() -> None:
        running = asyncio.create_task(journal.run())
        for number in range(5):
            await journal.record(event(number))
        await until(lambda: journal.status().undelivered_events == 5)
        assert journal.status().oldest_undelivered_seconds == 100.0
        (segment,) = stored(tmp_path)
        text = segment.path.read_bytes().splitlines(keepends=True)
        set_cursor(segment.path, sum(map(len, text[:3])))
        await journal.record(event(5))
        await until(lambda: journal.status().undelivered_events == 4)
        assert journal.status().oldest_undelivered_seconds == 98.0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    asyncio.run(story())


def test_only_the_segment_that_is_written_to_is_not_called_closed(tmp_path: Path) -> None:
    # Delivery skips what lies beyond the end of a closed segment, so an event there would be lost.
    journal = FileJournal(tmp_path, SMALL, deliver=True, sign=sign)

    async def story() -> None:
        for number in range(50):
            await journal.record(event(number))
        *earlier, current = journal.undelivered()
        assert len(earlier) > 1
        assert all(each.closed for each in earlier)
        assert not current.closed
        await journal.aclose()

    asyncio.run(story())
    assert all(each.closed for each in journal.undelivered())
    ends = {each.path: each.end for each in journal.undelivered()}
    assert ends == {segment.path: segment.size for segment in stored(tmp_path)}


# Killed


def test_a_killed_process_lost_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    _kill_while_recording(tmp_path, 0.3)


@pytest.mark.e2e
def test_twenty_killed_processes_lost_nothing_that_they_acknowledged(tmp_path: Path) -> None:
    for number in range(20):
        _kill_while_recording(tmp_path / str(number), number * 0.013)


def _kill_while_recording(folder: Path, seconds: float) -> None:
    with recorder(folder) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip()]
        time.sleep(seconds)
        process.kill()
        # The last line may have been cut in the pipe as well.
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    assert set(acknowledged) <= set(recorded(folder))
    report = examine(folder)
    assert report.whole
    assert len(recorded(folder)) - len(acknowledged) <= 2 * CALLERS


def test_half_a_line_at_the_end_is_reported_as_a_note(tmp_path: Path) -> None:
    with recorder(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
    (segment,) = stored(tmp_path)
    whole = segment.path.read_bytes().splitlines(keepends=True)[:4]
    segment.path.write_bytes(b"".join(whole) + whole[3][:20])
    report = examine(tmp_path)
    assert report.whole
    told = [(f.line, "within a line" in f.message) for f in report.findings if f.line]
    assert told == [(5, True)]
    assert len(recorded(tmp_path)) == 3


def test_empty_segments_and_locks_of_dead_processes_are_removed(tmp_path: Path) -> None:
    with recorder(tmp_path, "--file-bytes", "1") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("refused")
    lock = Lock.take(tmp_path, "1-0123456789abcdef")
    assert lock is not None
    journal = FileJournal(tmp_path, SIZE, sign=sign)

    async def story() -> None:
        running = asyncio.create_task(journal.run())
        await until(lambda: not list(tmp_path.glob(f"*{process.pid}-*")))
        await until(lambda: len(list(tmp_path.iterdir())) == 3)  # own segment, own lock, this lock
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()
        lock.release()

    asyncio.run(story())
    assert list(tmp_path.iterdir()) == []


# Events


def test_times_sort_as_text() -> None:
    times = [Trail("r", "POST", "/", started).event(200).time for started in (1.0, 1.5, 2.0)]
    assert times == sorted(times)
    assert times[0] == "1970-01-01T00:00:01.000000Z"


def test_an_event_has_the_members_that_openfaas_and_the_broker_promise() -> None:
    members = event().as_json()
    assert set(members) == {
        *("actor", "path", "method", "actions", "namespace", "response_code", "time"),
        *("custom_message", "event_id", "request_id", "roles", "policies", "reason"),
        "token_sha256",
    }
    assert "actor" not in event(actor=None).as_json()


def test_the_evidence_follows_the_sentence() -> None:
    trail = Trail("r", "POST", "/oauth/token", 1.0)
    trail.refused(Refusal(Reason.EXPIRED, evidence={"exp": 5, "now": 9.5}))
    assert trail.event(400).custom_message == (
        'The subject token has expired. Evidence: {"exp":5,"now":9.5}'
    )


def test_evidence_is_bounded() -> None:
    trail = Trail("r", "POST", "/oauth/token", 1.0)
    trail.refused(Refusal(Reason.EXPIRED, evidence={"roles": ["x" * 5000] * 5000}))
    assert len(trail.event(400).custom_message) < 20_000
