"""
Files in the journal's folder that no broker wrote, and disks that fail half way.

Somebody who can write there can remove events, and `verify` says so. They must not be able to stop
the rest: the broker records and delivers what is whole, and every file that was damaged is named.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from federation.audit.delivery import Delivery
from federation.audit.journal import FileJournal, Status, fdatasync
from federation.audit.read import News, in_order, last
from federation.audit.seals import Seals
from federation.audit.segments import Stored, stored
from federation.audit.webhook import Webhook
from federation.cli.audit import _batches
from federation.errors import Refusal
from tests.harness.journal_writer import SIZE, event, examine, recorded, sign
from tests.harness.webhook_receiver import receiving

SMALL = 64 * 1024
NESTED = b"[" * 100_000 + b"\n"
"""A line whose parser needs more stack than there is."""


def keep(folder: Path, count: int, *, deliver: bool = False) -> list[str]:
    """Record *count* events at *folder* and end, as if killed before anything was sealed."""
    journal = FileJournal(folder, SIZE, sign=sign, deliver=deliver)

    async def story() -> list[str]:
        kept = [event(number) for number in range(count)]
        for each in kept:
            await journal.record(each)
        await journal._lines.aclose()
        assert journal._lock
        journal._lock.release()
        return [each.event_id for each in kept]

    return asyncio.run(story())


def replace_line(folder: Path, number: int, by: bytes) -> Path:
    (segment,) = stored(folder)
    text = segment.path.read_bytes().splitlines(keepends=True)
    text[number] = by
    segment.path.write_bytes(b"".join(text))
    return segment.path


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to that")


# -- lines


def test_a_line_that_is_nested_without_end_is_named_and_hides_no_other(tmp_path: Path) -> None:
    ids = keep(tmp_path, 4)
    path = replace_line(tmp_path, 2, NESTED)
    broken = [finding for finding in examine(tmp_path).findings if finding.broken]
    assert [(finding.path, finding.line) for finding in broken] == [(path, 3)]
    left = [ids[0], *ids[2:]]
    assert recorded(tmp_path) == left
    assert [each["event_id"] for each in last(tmp_path, 10)] == left


def test_a_header_that_is_nested_without_end_is_named(tmp_path: Path) -> None:
    keep(tmp_path, 2)
    path = replace_line(tmp_path, 0, NESTED)
    broken = [finding for finding in examine(tmp_path).findings if finding.broken]
    assert (path, 1) in [(finding.path, finding.line) for finding in broken]


def test_such_a_line_does_not_stop_delivery(tmp_path: Path) -> None:
    ids = keep(tmp_path, 4, deliver=True)
    replace_line(tmp_path, 2, NESTED)

    async def story(url: str, arrived: Callable[[], list[str]]) -> None:
        journal = FileJournal(tmp_path, SIZE, sign=sign, deliver=True)
        delivery = Delivery(journal, Webhook(url))
        running = asyncio.create_task(delivery.run())
        await until(lambda: set(arrived()) == {ids[0], *ids[2:]})
        delivery.stop()
        await running
        await journal.aclose()

    with receiving() as receiver:
        asyncio.run(story(receiver.url, lambda: receiver.event_ids))


def test_such_a_line_does_not_stop_the_status(tmp_path: Path) -> None:
    keep(tmp_path, 2, deliver=True)
    replace_line(tmp_path, 1, NESTED)
    journal = FileJournal(tmp_path, SIZE, sign=sign, deliver=True)
    status: Status = journal.status()
    assert (status.problem, status.undelivered_events) == (None, 2)


def test_such_a_line_does_not_end_a_follower(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    news = News(tmp_path)
    (segment,) = stored(tmp_path)
    with segment.path.open("ab") as file:
        file.write(NESTED + b'{"event_id":"later"}\n')
    assert [each["event_id"] for each in news.read()] == ["later"]


# -- files


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_no_segment(tmp_path: Path, kind: str) -> None:
    ids = keep(tmp_path, 2)
    odd = tmp_path / f"{1:020d}-77-00000000000000aa.jsonl"
    odd.mkdir() if kind == "folder" else os.mkfifo(odd)
    assert odd not in [each.path for each in stored(tmp_path)]
    assert recorded(tmp_path) == ids
    assert examine(tmp_path).whole


def test_a_segment_that_a_killed_process_was_about_to_delete_goes_with_the_next(
    tmp_path: Path,
) -> None:
    journal = FileJournal(tmp_path, SMALL, sign=sign)

    async def story() -> Path:
        for number in range(60):
            await journal.record(event(number))
        await asyncio.to_thread(journal._try_to_seal, journal._seal_own)
        oldest = stored(tmp_path)[0].path
        Seals(tmp_path, sign, fdatasync).add_dropped(oldest.name)  # then it was killed
        assert oldest.exists()
        for number in range(60, 240):
            await journal.record(event(number))
        await journal.aclose()
        return oldest

    oldest = asyncio.run(story())
    assert not oldest.exists()
    assert examine(tmp_path).findings == []


# -- disks


def test_what_could_not_be_cut_off_is_cut_before_the_segment_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = OSError(errno.EIO, "Input/output error")
    broken = False

    def sync(descriptor: int) -> None:
        if broken:
            raise fails
        fdatasync(descriptor)

    def unable(*_args: object) -> None:
        raise fails

    journal = FileJournal(tmp_path, SIZE, sign=sign, sync=sync)
    kept, refused = event(1), event(2)

    async def story() -> None:
        nonlocal broken
        await journal.record(kept)
        broken = True
        with monkeypatch.context() as disk:
            disk.setattr(os, "ftruncate", unable)
            with pytest.raises(Refusal):
                await journal.record(refused)
            for _ in range(3):  # each try begins a segment, which is deleted again
                with pytest.raises(Refusal):
                    await journal.record(refused)
            assert len(journal._uncut) == 1
        broken = False
        await journal._probe()  # the disk is well again, and nothing more is recorded
        journal.check()
        await journal.aclose()

    asyncio.run(story())
    assert recorded(tmp_path) == [kept.event_id]
    assert examine(tmp_path).findings == []
    assert not journal._uncut


# -- segments that are dropped for room while somebody reads


@pytest.mark.parametrize("read", ["last", "news", "in order", "resend"])
def test_a_segment_that_is_dropped_while_it_is_read_ends_no_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    news = News(tmp_path)
    keep(tmp_path, 2)
    ids = keep(tmp_path, 3)

    def listed(folder: Path) -> list[Stored]:
        found = stored(folder)
        found[0].path.unlink(missing_ok=True)  # right after the listing
        return found

    for module in ("federation.audit.read", "federation.cli.audit"):
        monkeypatch.setattr(f"{module}.stored", listed)
    if read == "last":
        found = last(tmp_path, 10)
    elif read == "news":
        found = news.read()
    elif read == "in order":
        found = [each for each in in_order([tmp_path]) if each]
    else:
        found = [json.loads(each) for batch in _batches(tmp_path, None) for each in batch]
    assert [each["event_id"] for each in found] == ids
