"""The documents in files: reading them, watching them, and keeping the last good set."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from federation.documents.assemble import Assembled
from federation.documents.catalog import Catalog
from federation.errors import DocumentsRefused, Problem, Severity
from federation.sources import Source, reading, scan
from federation.sources.files import Adopted, FileSource, load
from tests.test_documents_load import ISSUER, POLICY, ROLE, SET

EDITED = SET.replace("name: deployer", "name: edited")
BROKEN = SET.replace("Allow", "Permit")


def codes(assembled: Assembled) -> list[str]:
    return [p.code for p in assembled.problems if p.severity is Severity.ERROR]


def names(assembled: Assembled) -> list[str]:
    assert assembled.catalog is not None, [str(p) for p in assembled.problems]
    return [role.name for role in assembled.catalog.roles]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


# Reading


def test_a_directory_is_read_with_all_below_it(tmp_path: Path) -> None:
    write(tmp_path / "issuers" / "github.yaml", ISSUER)
    write(tmp_path / "a" / "b" / "policy.yml", POLICY)
    write(tmp_path / "role.yaml", ROLE)
    write(tmp_path / "README.md", "not a document")
    write(tmp_path / "role.yaml~", "{{{")
    write(tmp_path / ".hidden.yaml", "{{{")
    write(tmp_path / ".git" / "config.yaml", "{{{")
    assembled = load([tmp_path])
    assert names(assembled) == ["deployer"]
    assert assembled.documents == 3


def test_json_files_are_read_as_json(tmp_path: Path) -> None:
    write(tmp_path / "set.yaml", SET)
    write(tmp_path / "bad.json", "a: b\n")
    assert codes(load([tmp_path])) == ["D002"]


def test_a_file_that_is_named_is_read_whatever_its_name(tmp_path: Path) -> None:
    assert names(load([write(tmp_path / ".documents.txt", SET)])) == ["deployer"]


def test_a_file_reached_twice_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path / "set.yaml", SET)
    (tmp_path / "same.yaml").symlink_to(path)
    (tmp_path / "again").symlink_to(tmp_path)
    assert load([tmp_path, path, tmp_path / ".", tmp_path / "same.yaml"]).documents == 3


def test_links_within_the_root_are_followed_and_loops_end(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / ".kept" / "set.yaml", SET)
    (root / "link").symlink_to(root / ".kept")
    (root / ".kept" / "back").symlink_to(root)
    assembled = load([root])
    assert assembled.documents == 3
    assert names(assembled) == ["deployer"]


def test_a_link_from_one_given_folder_into_another_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "shared" / "set.yaml", SET)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "set.yaml").symlink_to(tmp_path / "shared" / "set.yaml")
    assert load([tmp_path / "own", tmp_path / "shared"]).documents == 3


@pytest.mark.parametrize(
    "path", [".", "..", "../root", "./set.yaml", "deep/..", "deep/../set.yaml"]
)
def test_a_relative_path_is_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    write(tmp_path / "root" / "set.yaml", SET)
    (tmp_path / "root" / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    assert load([Path(path)]).documents == 3


def test_a_source_follows_the_links_that_the_operator_names(tmp_path: Path) -> None:
    write(tmp_path / "releases" / "7" / "set.yaml", SET)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "documents").symlink_to(tmp_path / "releases" / "7")
    (tmp_path / "elsewhere" / "set.yaml").symlink_to(tmp_path / "releases" / "7" / "set.yaml")
    for name in ("documents", "set.yaml"):
        source = FileSource([tmp_path / "elsewhere" / name])
        assert [role.name for role in source.current().roles] == ["deployer"]


def test_a_config_map_is_read_through_its_symlinks(tmp_path: Path) -> None:
    mount_config_map(tmp_path, "one", SET)
    assembled = load([tmp_path])
    assert assembled.documents == 3
    assert names(assembled) == ["deployer"]


@pytest.mark.parametrize("what", ["missing", "dangling", "pipe", "too large", "not text", "null"])
def test_what_cannot_be_read_is_a_problem_of_its_path(tmp_path: Path, what: str) -> None:
    write(tmp_path / "set.yaml", SET)
    path = tmp_path / "other.yaml"
    match what:
        case "dangling":
            path.symlink_to(tmp_path / "nowhere")
        case "pipe":
            os.mkfifo(path)
        case "too large":
            with path.open("wb") as file:
                file.truncate(16 * 1024 * 1024 + 1)
        case "not text":
            path.write_bytes(b"\xff\xfe")
        case "null":
            path = tmp_path / "a\0b"
    assembled = load([tmp_path, path])
    assert assembled.catalog is None
    assert set(codes(assembled)) == {"D001"}
    assert {p.path for p in assembled.problems if p.code == "D001"} == {str(path)}


def test_an_empty_directory_holds_no_documents(tmp_path: Path) -> None:
    assert codes(load([tmp_path])) == ["D021"]
    assert codes(load([])) == ["D021"]


def test_the_digest_is_of_names_and_content_wherever_they_are(tmp_path: Path) -> None:
    for root in ("one", "two", "three", "four"):
        write(tmp_path / root / "set.yaml", SET)
    write(tmp_path / "three" / "set.yaml", EDITED)
    (tmp_path / "four" / "set.yaml").rename(tmp_path / "four" / "other.yaml")
    digests = []
    for root in ("one", "two", "three", "four"):
        catalog = load([tmp_path / root]).catalog
        assert catalog is not None
        digests.append(catalog.digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert len(digests[0]) == 64


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", ISSUER + "---\n" + POLICY)
    for name in ("c", "a", "b"):
        write(tmp_path / f"{name}.yaml", ROLE.replace("deployer", name))
    assert names(load([tmp_path])) == ["a", "b", "c"]


# Starting


def test_a_source_serves_what_it_read_at_the_start(tmp_path: Path) -> None:
    source: Source = FileSource([write(tmp_path / "set.yaml", SET)])
    assert [role.name for role in source.current().roles] == ["deployer"]
    assert source.problems() == ()


def test_a_source_does_not_start_with_an_erroneous_set(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", BROKEN)
    write(tmp_path / "b.yaml", "- x\n")
    with pytest.raises(DocumentsRefused) as refused:
        FileSource([tmp_path])
    assert [problem.code for problem in refused.value.problems] == ["D007", "D004"]


def refusing(name: str) -> Callable[[Catalog], list[Problem]]:
    """Refuse a catalog with a Role of this *name*."""

    def refuse(catalog: Catalog) -> list[Problem]:
        found = [role for role in catalog.roles if role.name == name]
        return [Problem("set.yaml", 1, "D026", Severity.ERROR, "not this one") for _ in found]

    return refuse


def test_a_source_does_not_start_with_a_set_that_its_user_refuses(tmp_path: Path) -> None:
    with pytest.raises(DocumentsRefused) as refused:
        FileSource([write(tmp_path / "set.yaml", SET)], refuse=refusing("deployer"))
    assert [problem.message for problem in refused.value.problems] == ["not this one"]


class TestLastGoodSet:
    """A process that replaces another one serves the set which that one adopted last."""

    @staticmethod
    def text_of(path: Path) -> bytes:
        adopted: list[Adopted] = []
        FileSource([path], on_adopt=adopted.append)
        return adopted[0].text

    @pytest.mark.parametrize("damage", ["errors", "not UTF-8", "removed", "no documents"])
    def test_it_serves_while_the_files_have_errors(self, tmp_path: Path, damage: str) -> None:
        folder = tmp_path / "documents"
        path = write(folder / "größe" / "set.yaml", "\ufeff" + SET)
        good = FileSource([folder]).current()
        text = self.text_of(folder)
        match damage:
            case "errors":
                path.write_text(BROKEN)
            case "not UTF-8":
                path.write_bytes(b"\xff")
            case "removed":
                folder.rename(tmp_path / "elsewhere")
            case "no documents":
                path.unlink()
        source = FileSource([folder], last_good=text)
        assert source.current().digest == good.digest
        assert source.current().roles == good.roles
        assert source.problems() != ()

    def test_files_without_errors_are_read_instead(self, tmp_path: Path) -> None:
        path = write(tmp_path / "set.yaml", SET)
        text = self.text_of(path)
        path.write_text(EDITED)
        source = FileSource([path], last_good=text)
        assert [role.name for role in source.current().roles] == ["edited"]
        assert source.problems() == ()

    def test_it_is_judged_again(self, tmp_path: Path) -> None:
        path = write(tmp_path / "set.yaml", SET)
        text = self.text_of(path)
        path.write_text(BROKEN)
        with pytest.raises(DocumentsRefused) as refused:
            FileSource([path], last_good=text, refuse=refusing("deployer"))
        assert [problem.code for problem in refused.value.problems] == ["D007"]

    def test_it_is_replaced_by_the_next_good_one(self, tmp_path: Path) -> None:
        path = write(tmp_path / "set.yaml", SET)
        text = self.text_of(path)
        path.write_text(BROKEN)
        watched = Watched(tmp_path, last_good=text)
        assert watched.roles == ["deployer"]
        assert watched.adopted == [], "it was handed over already"

        async def story() -> None:
            path.write_text(EDITED)
            await watched.until(lambda: watched.roles == ["edited"])
            assert watched.source.problems() == ()

        watch(watched, story)

    def test_every_set_that_is_adopted_is_handed_over_and_no_other(self, tmp_path: Path) -> None:
        path = write(tmp_path / "set.yaml", SET)
        watched = Watched(tmp_path, refuse=refusing("unwanted"))
        before = time.monotonic()

        async def story() -> None:
            for bad in (BROKEN, SET.replace("name: deployer", "name: unwanted")):
                path.write_text(bad)
                told = len(watched.told)
                await watched.until(lambda told=told: len(watched.told) > told)  # type: ignore[misc]
                assert watched.roles == ["deployer"]
            path.write_text(EDITED)
            await watched.until(lambda: watched.roles == ["edited"])
            await watched.until(lambda: len(watched.adopted) == 2)

        watch(watched, story)
        first, last = watched.adopted
        assert first.read_at <= before <= last.read_at
        path.write_text(BROKEN)
        source = FileSource([tmp_path], last_good=last.text)
        assert [role.name for role in source.current().roles] == ["edited"]


# Watching


class Watched:
    """A source whose files are being watched, and its reports of changes."""

    def __init__(self, *paths: Path, interval_seconds: float = 0.02, **options: Any) -> None:
        self.told: list[Assembled] = []
        self.adopted: list[Adopted] = []
        self.source = FileSource(
            paths,
            interval_seconds=interval_seconds,
            on_change=self.told.append,
            on_adopt=self.adopted.append,
            **options,
        )

    @property
    def roles(self) -> list[str]:
        return [role.name for role in self.source.current().roles]

    async def until(self, true: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until *true* holds. Fail if it never does."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it never became true"
            await asyncio.sleep(0.005)


def watch(watched: Watched, story: Callable[[], Awaitable[None]]) -> None:
    """Run *story* while the files of *watched* are being watched. The watcher must not end first."""

    async def told() -> None:
        watcher = asyncio.create_task(watched.source.watch())
        try:
            await story()
            assert not watcher.done()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    asyncio.run(told())


def test_a_good_set_is_adopted_a_bad_one_is_not_and_the_last_good_one_serves_on(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "set.yaml", SET)
    watched = Watched(tmp_path)

    async def story() -> None:
        path.write_text(BROKEN)
        await watched.until(lambda: watched.source.problems() != ())
        assert [problem.code for problem in watched.source.problems()] == ["D007"]
        assert watched.roles == ["deployer"]
        assert watched.told[-1].catalog is None

        path.write_text(EDITED)
        await watched.until(lambda: watched.roles == ["edited"])
        assert watched.source.problems() == ()
        assert watched.told[-1].catalog is watched.source.current()

    watch(watched, story)


def test_a_change_is_live_within_two_seconds(tmp_path: Path) -> None:
    path = write(tmp_path / "set.yaml", SET)
    watched = Watched(tmp_path, interval_seconds=0.4)

    async def story() -> None:
        await asyncio.sleep(0.1)
        path.write_text(EDITED)
        await watched.until(lambda: watched.roles == ["edited"], seconds=2.0)

    watch(watched, story)


@pytest.mark.parametrize("change", ["new file", "removed file", "renamed file", "new directory"])
def test_files_that_come_and_go_are_noticed(tmp_path: Path, change: str) -> None:
    write(tmp_path / "set.yaml", SET)
    second = write(tmp_path / "more" / "two.yaml", ROLE.replace("deployer", "second"))
    watched = Watched(tmp_path)

    async def story() -> None:
        before = watched.source.current()
        match change:
            case "new file":
                write(tmp_path / "three.yaml", ROLE.replace("deployer", "third"))
            case "removed file":
                second.unlink()
            case "renamed file":
                second.rename(tmp_path / "more" / "zwei.yaml")
            case "new directory":
                write(tmp_path / "other" / "three.yaml", ROLE.replace("deployer", "third"))
        await watched.until(lambda: watched.source.current() is not before)
        expected = {"deployer", "second"}
        expected |= {"third"} if change.startswith("new") else set()
        expected -= {"second"} if change == "removed file" else set()
        assert set(watched.roles) == expected

    watch(watched, story)


def mount_config_map(mount: Path, version: str, text: str) -> None:
    """Write *text* as the kubelet does: all in a new directory, then one rename."""
    data = mount / f"..{version}"
    data.mkdir()
    write(data / "set.yaml", text)
    (mount / "..data_tmp").symlink_to(data.name)
    (mount / "..data_tmp").rename(mount / "..data")
    if not (mount / "set.yaml").is_symlink():
        (mount / "set.yaml").symlink_to("..data/set.yaml")


def test_the_swapped_symlink_of_a_config_map_is_noticed(tmp_path: Path) -> None:
    mount_config_map(tmp_path, "one", SET)
    watched = Watched(tmp_path)

    async def story() -> None:
        mount_config_map(tmp_path, "two", EDITED)
        await watched.until(lambda: watched.roles == ["edited"])
        assert len(watched.told) == 1

    watch(watched, story)


def test_a_half_written_file_is_not_adopted(tmp_path: Path) -> None:
    path = write(tmp_path / "set.yaml", SET)
    watched = Watched(tmp_path)

    async def story() -> None:
        half = len(EDITED) // 2
        with path.open("w") as file:
            file.write(EDITED[:half])
            file.flush()
            await watched.until(lambda: len(watched.told) > 0)
            assert watched.roles == ["deployer"]
            assert watched.source.problems() != ()
            file.write(EDITED[half:])
        await watched.until(lambda: watched.roles == ["edited"])
        assert watched.source.problems() == ()

    watch(watched, story)


def test_a_set_is_not_read_while_it_is_written_in_quick_steps(tmp_path: Path) -> None:
    path = write(tmp_path / "set.yaml", SET)
    watched = Watched(tmp_path, interval_seconds=0.4)

    async def story() -> None:
        for end in (200, 300, len(EDITED)):
            path.write_text(EDITED[:end])
            await asyncio.sleep(0.25)
        await watched.until(lambda: watched.roles == ["edited"])
        assert [assembled.catalog is None for assembled in watched.told] == [False]

    watch(watched, story)


def test_a_set_that_keeps_changing_is_still_adopted(tmp_path: Path) -> None:
    path = write(tmp_path / "set.yaml", SET)
    watched = Watched(tmp_path, interval_seconds=0.05)

    async def story() -> None:
        number = 0

        def restless() -> bool:
            nonlocal number
            number += 1
            path.write_text(EDITED + f"# {number}\n")
            return watched.roles == ["edited"]

        await watched.until(restless)

    watch(watched, story)


def test_an_unreadable_set_serves_on_and_recovers(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "set.yaml", SET)
    watched = Watched(root)

    async def story() -> None:
        root.rename(tmp_path / "away")
        await watched.until(lambda: watched.source.problems() != ())
        assert [problem.code for problem in watched.source.problems()] == ["D001"]
        assert watched.roles == ["deployer"]
        write(root / "set.yaml", EDITED)
        await watched.until(lambda: watched.roles == ["edited"])

    watch(watched, story)


def test_an_emptied_directory_is_not_adopted(tmp_path: Path) -> None:
    path = write(tmp_path / "set.yaml", SET)
    watched = Watched(tmp_path)

    async def story() -> None:
        path.unlink()
        await watched.until(lambda: watched.source.problems() != ())
        assert [problem.code for problem in watched.source.problems()] == ["D021"]
        assert watched.roles == ["deployer"]

    watch(watched, story)


def test_an_error_of_the_system_does_not_end_the_watch(tmp_path: Path) -> None:
    path = write(tmp_path / "set.yaml", SET)
    calls: list[Assembled] = []

    def full(assembled: Assembled) -> None:
        calls.append(assembled)
        raise OSError("disk full")

    watched = Watched(tmp_path)
    watched.source = FileSource([tmp_path], interval_seconds=0.02, on_change=full)

    async def story() -> None:
        path.write_text(BROKEN)
        await watched.until(lambda: len(calls) == 1)
        path.write_text(EDITED)
        await watched.until(lambda: watched.roles == ["edited"])

    watch(watched, story)


def test_a_set_that_stays_as_it_is_is_not_read_again(tmp_path: Path) -> None:
    write(tmp_path / "set.yaml", SET)
    watched = Watched(tmp_path)

    async def story() -> None:
        await asyncio.sleep(0.2)
        assert watched.told == []

    watch(watched, story)


def test_a_reload_that_is_asked_for_reads_the_files_at_once(tmp_path: Path) -> None:
    write(tmp_path / "set.yaml", SET)
    watched = Watched(tmp_path, interval_seconds=60)

    async def story() -> None:
        for times in (1, 2):
            watched.source.reload()
            await watched.until(lambda times=times: len(watched.told) == times)  # type: ignore[misc]

    watch(watched, story)


def test_a_source_says_when_it_last_read(tmp_path: Path) -> None:
    now = 100.0
    source = FileSource([write(tmp_path / "set.yaml", SET)], clock=lambda: now)
    assert source.read_at == 100.0


def limits_reached(assembled: Assembled) -> list[str]:
    """The messages about limits of a set that was not adopted."""
    assert assembled.catalog is None
    return [p.message for p in assembled.problems if p.code == "D001"]


def test_more_entries_than_the_limit_are_a_problem_and_the_rest_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_ENTRIES", 3)
    write(tmp_path / "a" / "set.yaml", SET)
    for name in "bcd":
        write(tmp_path / name / "broken.yaml", "{{{")
    assembled = load([tmp_path])
    assert limits_reached(assembled) == ["holds more than 10,000 files or 3 entries"]
    assert len(assembled.problems) == 1, "no broken file was read"


def test_more_files_than_the_limit_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_FILES", 3)
    for number in range(3):
        write(tmp_path / f"{number}.yaml", "")
    assert limits_reached(load([tmp_path])) == []
    write(tmp_path / "3.yaml", "")
    message = "holds more than 3 files or 100,000 entries"
    assert limits_reached(load([tmp_path])) == [message]


def test_more_bytes_than_the_limit_are_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (write(tmp_path / f"{name}.yaml", SET) for name in "ab")
    monkeypatch.setattr(reading, "_ALL_BYTES", 2 * len(SET) - 1)
    assert load([second]).catalog is not None
    assembled = load([first, second])
    assert assembled.catalog is None
    assert str(second) in [p.path for p in assembled.problems if "documents in all" in p.message]
