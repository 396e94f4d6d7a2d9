"""The supervisor: it replaces workers, backs off, hands the newest documents on, and ends in time."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from federation.server import workers
from federation.server.workers import NoWorkerLeft, ParentLine, Supervisor
from federation.sources.files import Adopted
from tests.harness.broker import logged
from tests.harness.process import until
from tests.harness.workers import failing, faithful, said

FIRST = Adopted(b"the first set", 1.0)


def supervise(
    folder: Path,
    work: Callable[[Path, int, socket.socket, ParentLine], None],
    story: Callable[[Supervisor], None],
    count: int = 1,
    serving: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Run *story* beside a supervisor of *count* workers, and return what was logged."""
    failures: list[BaseException] = []
    supervisor = Supervisor(partial(work, folder), count, FIRST, serving=serving)

    def tell() -> None:
        try:
            story(supervisor)
        except BaseException as failure:
            failures.append(failure)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    handlers = {number: signal.getsignal(number) for number in (1, 2, 15)}
    teller = threading.Thread(target=tell)
    with socket.create_server(("127.0.0.1", 0)) as listener, logged() as log:
        try:
            teller.start()
            supervisor.run(listener)  # in the main thread, which gets the signals
        finally:
            teller.join()
            for number, handler in handlers.items():
                signal.signal(number, handler)
    if failures:
        raise failures[0]
    return [json.loads(line) for line in log.getvalue().splitlines()]


def leave(path: Path, content: bytes) -> None:
    """Make the whole file *path* at once."""
    beside = path.with_name(f"new-{path.name}")
    beside.write_bytes(content)
    beside.rename(path)


def pid(supervisor: Supervisor, number: int = 0) -> int:
    return supervisor.pids()[str(number)]


def kill(supervisor: Supervisor, number: int = 0) -> None:
    """Kill a worker, and wait until it is replaced."""
    killed = pid(supervisor, number)
    os.kill(killed, signal.SIGKILL)
    assert until(lambda: supervisor.pids().get(str(number), killed) != killed, 20)


class TestDocuments:
    """A worker that replaces another one is given the set that was read last."""

    def test_the_first_workers_get_what_the_parent_read(self, tmp_path: Path) -> None:
        def story(_supervisor: Supervisor) -> None:
            given = ["given b'the first set'"]
            for number in (0, 1):
                assert until(lambda number=number: said(tmp_path, number) == given, 20)  # type: ignore[misc]

        supervise(tmp_path, faithful, story, count=2)

    def test_a_new_worker_gets_what_another_one_adopted(self, tmp_path: Path) -> None:
        large = b"x" * 3_000_000

        def story(supervisor: Supervisor) -> None:
            assert until(lambda: supervisor.serving() == (2, 2), 20)
            leave(tmp_path / "adopt-1-7.5", large)
            assert until(lambda: "adopted" in said(tmp_path, 1), 20)
            kill(supervisor, 0)
            assert until(lambda: len(said(tmp_path, 0)) == 2, 20)

        supervise(tmp_path, faithful, story, count=2)
        assert said(tmp_path, 0)[1] == f"given {large!r}"

    def test_what_it_said_last_counts_although_it_is_dead(self, tmp_path: Path) -> None:
        def story(supervisor: Supervisor) -> None:
            assert until(lambda: supervisor.serving() == (1, 1), 20)
            leave(tmp_path / "adopt-0-2.0", b"second")
            assert until(lambda: "adopted" in said(tmp_path), 20)
            kill(supervisor)
            assert until(lambda: len(said(tmp_path)) == 3, 20)

        supervise(tmp_path, faithful, story)
        assert said(tmp_path)[2] == "given b'second'"

    def test_a_set_that_was_read_before_another_one_does_not_replace_it(
        self, tmp_path: Path
    ) -> None:
        def story(supervisor: Supervisor) -> None:
            assert until(lambda: supervisor.serving() == (2, 2), 20)
            for name in ("adopt-1-9.0", "adopt-0-8.0"):
                leave(tmp_path / name, name.encode())
                assert until(lambda name=name: not (tmp_path / name).exists(), 20)  # type: ignore[misc]
                time.sleep(0.3)
            kill(supervisor, 0)
            assert until(lambda: len(said(tmp_path, 0)) == 3, 20)

        supervise(tmp_path, faithful, story, count=2)
        assert said(tmp_path, 0)[2] == "given b'adopt-1-9.0'"

    def test_without_memory_for_a_set_the_parent_keeps_no_older_one(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            ours.send(b"start")
            line = ParentLine(theirs)
            assert line.take_last_good() is None
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
            try:
                line.adopted(Adopted(b"x" * 2000, 5.0))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                signal.signal(signal.SIGXFSZ, ignored)
            message, files, *_ = socket.recv_fds(ours, 64, 1)
        assert (message, files) == (b"adopted 5.0", [])


class TestReplacing:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers, "_PAUSE_SECONDS", 0.25)

    def test_failed_starts_are_tried_less_and_less_often(self, tmp_path: Path) -> None:
        (tmp_path / "broken").touch()

        def story(supervisor: Supervisor) -> None:
            assert until(lambda: len(said(tmp_path)) == workers._STARTS, 60)
            assert until(lambda: set(supervisor.pids()) == {"parent"}, 20)
            assert supervisor.serving() == (0, 1)

        with pytest.raises(NoWorkerLeft):
            supervise(tmp_path, failing, story)
        began = [float(line.split()[1]) for line in said(tmp_path)]
        gaps = [later - earlier for earlier, later in pairwise(began)]
        for gap, pause in zip(gaps, (0.25, 0.5, 1), strict=True):
            assert gap > pause

    def test_one_worker_that_serves_keeps_the_supervisor_up(self, tmp_path: Path) -> None:
        def story(supervisor: Supervisor) -> None:
            assert until(lambda: supervisor.serving() == (2, 2), 20)
            (tmp_path / "broken").touch()
            os.kill(pid(supervisor, 0), signal.SIGKILL)
            assert until(lambda: len(said(tmp_path, 0)) == 4, 60)
            assert supervisor.serving() == (1, 2)
            (tmp_path / "broken").unlink()
            assert until(lambda: supervisor.serving() == (2, 2), 60)

        log = supervise(tmp_path, failing, story, count=2)
        ends = [line for line in log if line["event"] == "a worker ended; starting another"]
        assert [line["pause_seconds"] for line in ends][:4] == [0.25, 0.25, 0.5, 1]
        assert ends[0]["exit"] == -signal.SIGKILL
        assert ends[1]["exit"] == 3

    def test_it_is_told_once_that_somebody_serves(self, tmp_path: Path) -> None:
        told: list[int] = []

        def story(supervisor: Supervisor) -> None:
            assert until(lambda: supervisor.serving() == (2, 2), 20)
            kill(supervisor)
            assert until(lambda: supervisor.serving() == (2, 2), 20)

        supervise(tmp_path, failing, story, count=2, serving=lambda: told.append(1))
        assert told == [1]


class TestReload:
    def test_sighup_reaches_every_worker_and_ends_none(self, tmp_path: Path) -> None:
        def story(supervisor: Supervisor) -> None:
            assert until(lambda: supervisor.serving() == (2, 2), 20)
            pids = supervisor.pids()
            for times in (1, 2):
                os.kill(os.getpid(), signal.SIGHUP)
                for number in (0, 1):
                    heard = partial(said, tmp_path, number)
                    assert until(lambda: heard().count("reload") == times, 20)  # noqa: B023
            for number in (0, 1):  # as a terminal does that closes
                os.kill(pid(supervisor, number), signal.SIGHUP)
            time.sleep(0.7)
            assert supervisor.pids() == pids

        supervise(tmp_path, faithful, story, count=2)
