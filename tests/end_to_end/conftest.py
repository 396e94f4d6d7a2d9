"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.demo.stage import Stage
from tests.harness.kube import Cluster, cluster_running
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


@pytest.fixture(name="cluster", scope="session")
def _cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """
    A Kubernetes API server with our CRDs that the tests share, each in a namespace of its own.

    A test that kills it, or that changes what belongs to the whole cluster, runs its own with
    `cluster_running`.
    """
    with cluster_running(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.apply_crds()
        yield cluster


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
