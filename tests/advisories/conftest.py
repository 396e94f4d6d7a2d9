"""Fixtures that several attacks share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Keep the garbage collector away, as it is while documents are read."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
