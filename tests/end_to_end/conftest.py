"""What the tests with real servers share."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _harness_lets_go() -> Iterator[None]:
    """
    Connections of the harness end with their module.

    Servers are processes of their own here, and some are killed in the middle of an answer. The
    test's own end of such a connection may be left to the garbage collector, which would tell of
    it within whatever test runs next.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
