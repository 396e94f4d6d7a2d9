"""Servers in Go, built and run as processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.process import Server


@contextmanager
def go_server(source: Path, *arguments: str) -> Iterator[str]:
    """
    Run the Go file *source* with *arguments*, and yield its URL; kill it at the end.

    It is built first, so that no child outlives it.
    """
    go = shutil.which("go")
    assert go, "go is needed: .ci/install installs it"
    environ = {**os.environ, "GO111MODULE": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as temporary:
        program = Path(temporary, "program")
        subprocess.run(  # noqa: S603  our own words
            [go, "build", "-o", program, source], check=True, env=environ, timeout=300
        )
        server = Server([], Path(temporary))
        server.command = [str(program), *arguments]
        try:
            server.start()
            yield server.url
        finally:
            server.kill()
