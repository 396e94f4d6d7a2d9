"""
What operators are told must hold no secret that they wrote in the wrong place, and no command.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import httpx2
import pytest
from click.testing import CliRunner

from federation.app.parts import given_keys
from federation.cli import main
from federation.doctor.advice import for_answer
from federation.errors import SettingsRefused
from federation.outbound import Outbound
from federation.pages import docs_address

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"http://alice:{SECRET}@proxy.example:3128",
        f"http://alice:x,{SECRET}@proxy.example:3128",
        f"localhost,http://alice:{SECRET} x@proxy.example:3128",
    ],
)
def test_a_proxy_that_was_written_into_no_proxy_is_not_shown(text: str) -> None:
    described = Outbound.of({"HTTPS_PROXY": "http://proxy.example", "NO_PROXY": text}).described()
    assert described.notes
    assert SECRET not in str(described.notes)
    assert SECRET not in str(described.exceptions)


def test_the_address_of_the_docs_holds_no_password() -> None:
    # It is sent to everybody whose request is refused.
    with pytest.raises(ValueError, match="without @") as raised:
        docs_address(f"https://alice:{SECRET}@docs.example.com/federation")
    assert SECRET not in str(raised.value)


@pytest.fixture
def rude_proxy() -> Iterator[str]:
    """A proxy that refuses with a line that a terminal and a CI runner would obey."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65_536)
                        words = b"\x9b31m##vso[task.complete]" * 1000
                        connection.sendall(b"HTTP/1.1 502 " + words + b"\r\n\r\n")

        thread = Thread(target=refuse)
        thread.start()
        try:
            yield f"http://alice:{SECRET}@127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_words_of_a_proxy_are_not_shown(rude_proxy: str, tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir(mode=0o700)
    arguments = ["audit", "verify", "--state", str(tmp_path), "--jwks", "https://keys.example/"]
    told = CliRunner(env={"HTTPS_PROXY": rude_proxy, "NO_PROXY": ""}).invoke(main, arguments)
    assert told.exit_code == 1
    assert "the proxy refused to pass it on" in told.output
    assert "vso" not in told.output
    assert SECRET not in told.output


def test_the_text_of_an_error_is_short_whatever_a_proxy_says(rude_proxy: str) -> None:
    with (
        Outbound.of({"HTTPS_PROXY": rude_proxy}).client() as client,
        pytest.raises(httpx2.ProxyError) as raised,
    ):
        client.get("https://issuer.example/")
    assert len(str(raised.value)) < 500
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("path", ["$(id)", "`id`", ";id", "a|id", "a&id", "a'$(id)'"])
def test_an_address_in_a_document_is_no_command_for_the_operators_shell(path: str) -> None:
    url = f"https://issuer.example/{path}"
    assert shlex.split(for_answer(url).partition("curl -v ")[2]) == [url]
    assert shlex.split(for_answer(url).partition("curl -v ")[2], posix=False) != [url]


def test_a_signing_key_that_is_a_device_is_refused_in_words() -> None:
    with pytest.raises(SettingsRefused) as raised:
        given_keys([Path("/dev/null")])
    assert raised.value.problems == ("signing-key: /dev/null: not a regular file",)
