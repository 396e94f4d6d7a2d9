"""
Inject the faults of `make faults`, each in its short form, several at a time.

A fault that cannot be tried on this machine is skipped with the reason, unless FAULTS_ALL is set.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping

import pytest

from faults.__main__ import FAULTS, Row, run_all, table

AT_ONCE = 4

pytestmark = [pytest.mark.e2e, pytest.mark.alone]


@pytest.fixture(scope="module")
def rows() -> Mapping[str, Row]:
    """The row of each fault."""
    found = asyncio.run(run_all(list(FAULTS), short=True, at_once=AT_ONCE))
    sys.stdout.write("\n" + table(found) + "\n")
    return {row.name: row for row in found}


@pytest.mark.parametrize("name", FAULTS)
def test_the_promise_holds_under_the_fault(name: str, rows: Mapping[str, Row]) -> None:
    row = rows[name]
    if row.not_tried and not os.environ.get("FAULTS_ALL"):
        pytest.skip(row.not_tried)
    assert row.held, table([row])
