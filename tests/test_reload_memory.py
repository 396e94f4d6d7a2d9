"""Memory that a broker keeps of documents that it reads again and again."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.harness.builders import GITHUB
from tests.harness.documents import issuer
from tests.harness.process import Server, until

MIB = 1024 * 1024


def test_a_reload_leaves_no_text_of_the_documents_behind(tmp_path: Path) -> None:
    documents = tmp_path / "documents.json"
    documents.write_text(json.dumps(issuer("github", GITHUB)) + " " * (8 * MIB))
    flags = [f"--documents={documents}", f"--state={tmp_path / 'state'}", "--log-format=json"]
    one_heap = {"MALLOC_ARENA_MAX": "1"}  # else each thread keeps freed memory of its own
    server = Server(["federation", "serve", "--port=0", *flags], tmp_path / "log", one_heap)

    def adopted() -> int:
        return server.output().count('"documents adopted"')

    def reload() -> None:
        before = adopted()
        server.send(signal.SIGHUP)
        assert until(lambda: adopted() > before, 20)

    with server.running():
        for _ in range(2):
            reload()
        settled = server.resident_bytes()
        for _ in range(6):
            reload()
        assert server.resident_bytes() - settled < 24 * MIB
