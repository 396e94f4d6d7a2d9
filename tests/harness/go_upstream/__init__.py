"""The upstream in Go, built and run as a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.process import Server

_SOURCE = Path(__file__).parent / "main.go"


class GoServer(Server):
    """A server of a single Go file. It is built first, so that no child outlives it."""

    def __init__(self, source: Path, folder: Path) -> None:
        super().__init__([], folder)
        go = shutil.which("go")
        assert go, "go is needed: .ci/install installs it"
        program = folder / source.stem
        environ = {**os.environ, "GO111MODULE": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        subprocess.run(  # noqa: S603  our own words
            [go, "build", "-o", program, source], check=True, env=environ, timeout=300
        )
        self.command = [str(program)]


@contextmanager
def go_upstream() -> Iterator[str]:
    """Run the upstream, and yield its URL; kill it at the end, whatever it is doing."""
    with tempfile.TemporaryDirectory() as temporary:
        server = GoServer(_SOURCE, Path(temporary))
        try:
            server.start()
            yield server.url
        finally:
            server.kill()
