"""In which order the tests run, and how they are called."""

from __future__ import annotations

import pytest

LONGEST = (
    "tests/end_to_end/test_image.py",
    "tests/test_pyjwt_agrees.py",
    "tests/end_to_end/test_kubernetes_source.py",
)
"""The files that take minutes. They begin first, so that none is left to one process at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all else stays in its order."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in LONGEST)


def pytest_make_parametrize_id(val: object) -> str | None:
    """
    Name a set by its members in order.

    Processes that run tests beside each other compare the names, and each has an order of its own
    for the members of a set.
    """
    return repr(sorted(map(repr, val))) if isinstance(val, set | frozenset) else None
