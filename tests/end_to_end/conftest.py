"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.demo.stage import Stage
from tests.harness.real_runners import Repository, stage_set


@pytest.fixture(name="stage", scope="module")
def _stage() -> Iterator[Stage]:
    """The servers of `federation demo`."""
    with stage_set() as stage:
        yield stage


@pytest.fixture(name="repository")
def _repository(tmp_path: Path, stage: Stage) -> Repository:
    """A repository whose jobs deploy to the servers of `federation demo`."""
    return Repository(tmp_path, stage)


@pytest.fixture(autouse=True, scope="module")
def _close_connections() -> Iterator[None]:
    """
    Close the harness's connections when their module ends.

    Some servers are killed in the middle of an answer. The garbage collector may then find the
    test's end of the connection, and would warn of it in whatever test runs at that time.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
