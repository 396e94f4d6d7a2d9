"""Fixtures of the end-to-end tests."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from federation.demo.stage import Stage
from tests.harness.browser import Person, chromium_running, person_in
from tests.harness.keycloak import Keycloak, keycloak_running
from tests.harness.kube import Cluster, cluster_running
from tests.harness.oidc_provider import OidcProvider, oidc_provider_running
from tests.harness.real_runners import Repository, stage_set

if TYPE_CHECKING:
    from playwright.sync_api import Browser


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


@pytest.fixture(name="keycloak", scope="session")
def _keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    """
    A Keycloak that the tests share, with the people and clients of `tests.harness.sign_on_parts`.

    The dashboard of a test listens at its `ports.dashboard`, the command line at its
    `ports.callback`. A test that changes the realm changes it back.
    """
    with keycloak_running(tmp_path_factory.mktemp("keycloak") / "home") as keycloak:
        yield keycloak


@pytest.fixture(name="oidc_provider", scope="session")
def _oidc_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    """An `oidc-provider` that the tests share, with the same people and clients as Keycloak."""
    with oidc_provider_running(tmp_path_factory.mktemp("provider") / "home") as provider:
        yield provider


@pytest.fixture(name="chromium", scope="module")
def _chromium() -> Iterator[Browser]:
    """
    A Chromium that the tests of a file share. Each test has a profile of its own in it: `person`.

    It ends with the file: while Playwright runs, its thread counts as one with a running event
    loop, and tests of other files could not call `asyncio.run`.
    """
    with chromium_running() as browser:
        yield browser


@pytest.fixture(name="person")
def _person(chromium: Browser) -> Iterator[Person]:
    """A person in Chromium with a new profile. The test fails if the browser leaves loopback."""
    with person_in(chromium) as person:
        yield person


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
