"""Seals show changes, cuts, moves and removals, and sealing never stops events."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from federation.audit.journal import FileJournal
from federation.audit.seals import SEAL_TYPE, Seals, seal_files
from federation.audit.segments import Closed, Lock, stored
from federation.audit.verify import check_journal
from federation.jose import jws
from federation.jose.jwk import parse_key_set
from federation.tokens.mint import sign_jws
from federation.tokens.signing_keys import SigningKey
from tests.harness.broker import logged
from tests.harness.journal_writer import (
    SEALING_KEY,
    SIZE,
    event,
    examine,
    recorded,
    recorder,
    sign,
)

SMALL = 64 * 1024


def record(folder: Path, count: int, size: int = SMALL) -> None:
    """Record *count* events in a journal of its own and close it."""

    async def story() -> None:
        journal = FileJournal(folder, size, sign=sign)
        for number in range(count):
            await journal.record(event(number))
        await journal.aclose()

    asyncio.run(story())


def broken(folder: Path) -> list[tuple[str, str]]:
    """The files and messages of the findings that show tampering or damage."""
    return [(f.path.name, f.message) for f in examine(folder).findings if f.broken]


def seals(folder: Path) -> list[Path]:
    return list(seal_files(folder).values())


def said(seal: Path) -> dict[str, object]:
    return dict(jws.parse(seal.read_text("ascii")).claims)


# The chain


def test_each_closed_segment_has_a_seal_that_names_the_one_before(tmp_path: Path) -> None:
    record(tmp_path, 50)
    names = [segment.path.name for segment in stored(tmp_path)]
    texts = [said(path) for path in seals(tmp_path)]
    assert [text["closed"]["segment"] for text in texts] == names  # type: ignore[index]
    assert [text["number"] for text in texts] == list(range(1, len(names) + 1))
    assert texts[0]["previous"] == ""
    assert len({str(text["previous"]) for text in texts}) == len(names)
    assert examine(tmp_path).findings == []


def test_a_seal_is_for_its_owner_alone_and_leaves_no_draft(tmp_path: Path) -> None:
    record(tmp_path, 50)
    assert all(path.stat().st_mode & 0o077 == 0 for path in seals(tmp_path))
    assert {path.suffix for path in tmp_path.iterdir()} == {".jsonl", ".seal"}


def test_workers_make_one_chain(tmp_path: Path) -> None:
    journals = [FileJournal(tmp_path, 4 * SMALL, sign=sign, workers=4) for _ in range(4)]

    async def story() -> None:
        running = [asyncio.create_task(journal.run()) for journal in journals]
        for _ in range(40):
            await asyncio.gather(*(journal.record(event()) for journal in journals))
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.gather(*(journal.aclose() for journal in journals))

    asyncio.run(story())
    assert examine(tmp_path).findings == []
    assert examine(tmp_path).events == 160


def test_a_change_made_before_the_segment_is_closed_is_found(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, SIZE, sign=sign)

    async def story() -> None:
        await journal.record(event(1))
        (segment,) = stored(tmp_path)
        text = segment.path.read_bytes()
        segment.path.write_bytes(text.replace(b'"response_code":200', b'"response_code":403'))
        await journal.aclose()

    asyncio.run(story())
    assert [message for _, message in broken(tmp_path)] == [
        "was changed: it has another SHA-256 than its seal"
    ]


def test_a_journal_that_is_checked_while_it_is_written_is_whole(tmp_path: Path) -> None:
    async def story() -> None:
        journal = FileJournal(tmp_path, SMALL, sign=sign)
        running = asyncio.create_task(journal.run())
        for number in range(0, 600, 20):
            writing = [journal.record(event(number + n)) for n in range(20)]
            checking = asyncio.create_task(asyncio.to_thread(examine, tmp_path))
            await asyncio.gather(*writing)
            check = await checking
            assert [f for f in check.findings if f.broken] == []
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    asyncio.run(story())


# Attacks on the chain


def test_a_removed_seal_is_reported(tmp_path: Path) -> None:
    record(tmp_path, 50)
    gone, after = seals(tmp_path)[1:3]
    gone.unlink()
    assert (after.name, "follows seal 2, which is missing: it was removed") in broken(tmp_path)


def test_swapped_seals_are_found(tmp_path: Path) -> None:
    record(tmp_path, 50)
    first, second = seals(tmp_path)[1:3]
    texts = first.read_bytes(), second.read_bytes()
    first.write_bytes(texts[1])
    second.write_bytes(texts[0])
    assert (first.name, "is seal 3 under another number") in broken(tmp_path)
    assert (second.name, "is seal 2 under another number") in broken(tmp_path)


def test_the_seal_of_another_segment_does_not_pass(tmp_path: Path) -> None:
    record(tmp_path, 50)
    first, second = seals(tmp_path)[1:3]
    second.write_bytes(first.read_bytes())
    assert (second.name, "is seal 2 under another number") in broken(tmp_path)


def test_a_seal_of_another_journal_does_not_pass(tmp_path: Path) -> None:
    record(tmp_path / "here", 50)
    record(tmp_path / "there", 50)
    here, there = seals(tmp_path / "here")[1], seals(tmp_path / "there")[1]
    segment = tmp_path / "here" / str(said(here)["closed"]["segment"])  # type: ignore[index]
    other = tmp_path / "there" / str(said(there)["closed"]["segment"])  # type: ignore[index]
    here.write_bytes(there.read_bytes())
    segment.unlink()
    (tmp_path / "here" / other.name).write_bytes(other.read_bytes())
    message = "does not follow seal 1: one of the two was replaced"
    assert (here.name, message) in broken(tmp_path / "here")


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (lambda text: sign_jws(said_in(text), SigningKey.generate(), SEAL_TYPE), "is signed by a key that is not in the JWKS"),
        (lambda text: sign_jws(said_in(text), SEALING_KEY, "at+jwt"), "is not a signed seal: its header"),
        (lambda text: sign_jws({"number": 2}, SEALING_KEY, SEAL_TYPE), "not a seal of an audit journal"),
        (lambda text: text[:-8] + ("A" * 8), "has a signature that does not verify"),
        (lambda text: sign({**said_in(text), "previous": "0" * 64}), "does not follow seal 1"),
        (lambda text: text.rpartition(".")[0] + ".", "is not a signed seal"),
        (lambda _: "", "is not a signed seal"),
        (lambda _: "x" * 100_000, "is not a signed seal"),
    ],
    ids=["key", "type", "payload", "signature", "previous", "no signature", "empty", "long"],
)  # fmt: skip
def test_a_forged_seal_is_named(tmp_path: Path, forge: Callable[[str], str], message: str) -> None:
    record(tmp_path, 50)
    seal = seals(tmp_path)[1]
    seal.write_text(forge(seal.read_text("ascii")), "ascii")
    assert any(name == seal.name and message in told for name, told in broken(tmp_path))


def said_in(text: str) -> Mapping[str, object]:
    return jws.parse(text).claims


def test_another_key_with_the_same_kid_does_not_pass(tmp_path: Path) -> None:
    record(tmp_path, 50)
    other = {**SigningKey.generate().jwk, "kid": SEALING_KEY.kid}
    check = check_journal(tmp_path, parse_key_set({"keys": [other]}))
    assert {f.message for f in check.findings if f.path.suffix == ".seal"} == {
        "has a signature that does not verify: it was changed or forged"
    }
    assert not check.whole


def test_the_newest_seals_cannot_be_removed_while_a_younger_segment_names_them(
    tmp_path: Path,
) -> None:
    record(tmp_path, 3, SIZE)

    async def story() -> None:
        journal = FileJournal(tmp_path, SIZE, sign=sign)
        running = asyncio.create_task(journal.run())
        await asyncio.sleep(0.1)
        await journal.record(event())
        (seal,) = seals(tmp_path)
        seal.unlink()
        assert [message for _, message in broken(tmp_path)] == [
            "was opened after seal 1, but the newest seal here is 0: the newest seals were removed"
        ]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    asyncio.run(story())
    # The broker goes on with number 2, and the gap stays.
    assert any("which is missing" in message for _, message in broken(tmp_path))


def test_a_seal_without_its_segment_needs_a_signed_record_of_the_drop(tmp_path: Path) -> None:
    record(tmp_path, 50)
    gone = stored(tmp_path)[0].path
    Seals(tmp_path, sign, lambda _: None).add_dropped(gone.name)
    assert examine(tmp_path).whole
    gone.unlink()
    assert examine(tmp_path).findings == []
    stored(tmp_path)[0].path.unlink()
    assert [told for _, told in broken(tmp_path)] == [
        "was removed: it has a seal, and no seal says that it was dropped"
    ]


# Room


def test_drops_for_room_are_recorded_and_old_seals_are_deleted(tmp_path: Path) -> None:
    record(tmp_path, 1000)
    report = examine(tmp_path)
    assert report.findings == []
    assert report.events == len(recorded(tmp_path)) < 400
    segments = len(stored(tmp_path))
    assert len(seals(tmp_path)) <= 2 * segments + 1
    assert int(seals(tmp_path)[0].stem) > segments


def test_an_unsealed_segment_is_not_dropped_while_it_can_be_sealed(tmp_path: Path) -> None:
    first, second = (FileJournal(tmp_path, SMALL, sign=sign) for _ in range(2))

    async def story() -> None:
        for number in range(30):
            await first.record(event(number))  # some segments are closed, and none is sealed
        for number in range(300):
            await second.record(event(number))
        await first.aclose()
        await second.aclose()

    asyncio.run(story())
    assert broken(tmp_path) == []


# Sealing that fails


class Signing:
    """Signs, unless it is made to fail."""

    def __init__(self) -> None:
        self.failure: OSError | None = None

    def __call__(self, payload: Mapping[str, object]) -> str:
        if self.failure:
            raise self.failure
        return sign(payload)


def test_a_failure_to_seal_is_logged_and_retried_and_loses_no_event(
    tmp_path: Path,
) -> None:
    signing = Signing()
    signing.failure = OSError(errno.EIO, "Input/output error")
    journal = FileJournal(tmp_path, SMALL, sign=signing)

    async def story() -> None:
        running = asyncio.create_task(journal.run())
        for number in range(100):
            await journal.record(event(number))
        await until(lambda: journal.status().sealing_problem == "Input/output error")
        assert journal.status().problem is None
        assert seals(tmp_path) == []
        assert len(recorded(tmp_path)) == 100
        signing.failure = None
        await until(lambda: journal.status().sealing_problem is None)
        assert len(seals(tmp_path)) == len(stored(tmp_path)) - 1, "all but the open one"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    with logged() as log:
        asyncio.run(story())
    told = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert told.count("audit segments cannot be sealed; trying again") == 1
    assert told.count("audit segments can be sealed again") == 1
    assert examine(tmp_path).findings == []


def test_recording_goes_on_at_the_bound_while_nothing_can_be_sealed(tmp_path: Path) -> None:
    signing = Signing()
    journal = FileJournal(tmp_path, SMALL, sign=signing)
    kept: list[str] = []

    async def story() -> None:
        for number in range(400):
            if number == 150:
                signing.failure = OSError(errno.EIO, "Input/output error")
            await journal.record(one := event(number))
            kept.append(one.event_id)
        assert journal.status().sealing_problem
        signing.failure = None
        await journal.aclose()

    asyncio.run(story())
    assert len(kept) == 400
    assert recorded(tmp_path) == kept[-len(recorded(tmp_path)) :]
    assert examine(tmp_path).findings == [], "drops are put on record as soon as that is possible"
    assert sum(segment.size for segment in stored(tmp_path)) <= SMALL


@pytest.mark.alone
def test_a_lock_that_somebody_holds_delays_no_event(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, SMALL, sign=sign)

    async def story() -> None:
        running = asyncio.create_task(journal.run())
        await journal.record(event())
        held = Lock.take(tmp_path, "seals")
        assert held
        slowest = 0.0
        for number in range(300):
            began = time.monotonic()
            await journal.record(event(number))
            slowest = max(slowest, time.monotonic() - began)
        assert journal.status().bytes_used > SMALL / 2, "the status stays fresh"
        held.release()
        assert slowest < 2, "shorter than sealing waits for its lock"
        assert len(recorded(tmp_path)) < 200, "the oldest were dropped"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    asyncio.run(story())
    assert examine(tmp_path).findings == []


def test_a_draft_that_a_crash_left_is_no_seal(tmp_path: Path) -> None:
    record(tmp_path, 3, SIZE)
    (tmp_path / "seal.draft").write_text("half a se")
    record(tmp_path, 3, SIZE)
    assert examine(tmp_path).findings == []
    assert len(seals(tmp_path)) == 2


def test_a_closed_segment_is_sealed_once(tmp_path: Path) -> None:
    closed = Closed("a.jsonl", 1, 1, "ab", adopted=False)
    one, other = (Seals(tmp_path, sign, lambda _: None) for _ in range(2))
    one.add_closed(closed)
    other.add_closed(closed)
    one.add_dropped("a.jsonl")
    other.add_closed(closed)
    other.add_dropped("a.jsonl")
    (left,) = seals(tmp_path)
    assert left.stem == f"{2:012}", "the record of the drop is the last"


# Killed


def test_an_open_segment_is_reported_as_a_note(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path, SIZE, sign=sign)

    async def story() -> None:
        await journal.record(event())
        report = examine(tmp_path)
        assert [f.message for f in report.findings] == ["open, not sealed yet by its process"]
        assert report.whole
        assert report.events == 1
        await journal.aclose()

    asyncio.run(story())


def test_segments_of_a_killed_process_are_sealed_by_a_living_one(tmp_path: Path) -> None:
    with recorder(tmp_path, "--size", "262144") as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(300)]
    before = {segment.path.name for segment in stored(tmp_path)}
    assert any("its process was killed" in f.message for f in examine(tmp_path).findings)

    async def story() -> None:
        journal = FileJournal(tmp_path, SIZE, sign=sign)
        running = asyncio.create_task(journal.run())
        await until(lambda: before <= sealed(tmp_path))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    asyncio.run(story())
    report = examine(tmp_path)
    assert report.whole
    adopted = [f for f in report.findings if "sealed after its process had ended" in f.message]
    assert adopted
    assert {str(f.path.name) for f in adopted} <= before
    assert set(acknowledged) <= set(recorded(tmp_path))
    assert [path for path in tmp_path.iterdir() if path.suffix == ".lock"] == []
    segment = stored(tmp_path)[-1].path
    segment.write_bytes(
        segment.read_bytes().replace(b'"response_code":200', b'"response_code":403')
    )
    assert not examine(tmp_path).whole


def sealed(folder: Path) -> set[str]:
    return {str(said(path)["closed"]["segment"]) for path in seals(folder)}  # type: ignore[index]


@pytest.mark.parametrize("left", [b"", b'{"journal":1,"proc'], ids=["empty", "half a header"])
def test_a_segment_that_was_never_begun_is_removed_and_is_no_damage(
    tmp_path: Path, left: bytes
) -> None:
    begun = tmp_path / f"{1:020d}-77-00000000000000aa.jsonl"
    begun.write_bytes(left)
    assert broken(tmp_path) == []

    async def story() -> None:
        journal = FileJournal(tmp_path, SIZE, sign=sign)
        running = asyncio.create_task(journal.run())
        await until(lambda: not begun.exists())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await journal.aclose()

    asyncio.run(story())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.e2e
def test_killed_again_and_again_the_chain_stays_whole(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for number in range(15):
        with recorder(tmp_path, "--size", "131072") as process:
            assert process.stdout is not None
            acknowledged.add(process.stdout.readline().strip())
            time.sleep(0.15 * (number % 5))
            process.kill()
    record(tmp_path, 1, SIZE)
    assert broken(tmp_path) == []


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to that")


@pytest.mark.parametrize(
    "name",
    [
        "9999999999999.seal",
        "\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669\u0660\u0661\u0662.seal",
        "000000000009.seal.seal",
    ],
)
def test_a_file_with_an_odd_name_is_no_seal(tmp_path: Path, name: str) -> None:
    record(tmp_path, 20)
    (tmp_path / name).write_text("planted")
    assert name not in [path.name for path in seals(tmp_path)]
    record(tmp_path, 20)
    assert examine(tmp_path).whole


def test_the_last_number_is_told_and_stops_no_event(tmp_path: Path) -> None:
    (tmp_path / "999999999999.seal").write_text("planted")
    record(tmp_path, 20)
    assert [path.name for path in seals(tmp_path)] == ["999999999999.seal"]
    assert len(recorded(tmp_path)) == 20


@pytest.mark.parametrize("plant", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_seal_is_read_from_a_regular_file_only(
    tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    plant(tmp_path / "000000000001.seal")
    record(tmp_path, 20)  # a pipe would wait for a writer for ever
    assert len(recorded(tmp_path)) == 20
    assert examine(tmp_path).whole
