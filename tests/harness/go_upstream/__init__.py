"""The upstream in Go, built and run as a process."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tests.harness.go import go_server


def go_upstream() -> AbstractContextManager[str]:
    """Run the upstream, and give its URL."""
    return go_server(Path(__file__).with_name("main.go"))
