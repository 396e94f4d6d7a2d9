"""
A hostile gateway, or a proxy in front of it, that answers the client: `Sender` and the exchange.

No answer costs much memory or time, ends in a traceback, or writes to the terminal. Nothing is sent
in clear to another machine.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import time

import click
import httpx2
import pytest

from federation.cli.people import told_errors
from federation.client import ClientError, http
from federation.client.exchange import exchange
from federation.client.http import Sender
from tests.harness.builders import AUDIENCE
from tests.harness.issuer import FakeIssuer
from tests.harness.process import in_thread
from tests.harness.raw_server import http_answer, raw_server


def exchanged(content: bytes) -> int:
    """The lifetime of the access token in an answer of the token endpoint."""
    answer = httpx2.Response(200, content=content)
    client = httpx2.Client(transport=httpx2.MockTransport(lambda _request: answer))
    token = FakeIssuer().token({"aud": AUDIENCE})
    with Sender(client, pause=lambda _seconds: None) as sender:
        return exchange(AUDIENCE, token, sender).expires_in_seconds


def test_a_lifetime_of_a_token_is_taken() -> None:
    assert exchanged(b'{"access_token": "x", "expires_in": 900}') == 900


@pytest.mark.parametrize("seconds", [True, 0, -5, 10**9, 10**60, 10**400])
def test_a_lifetime_that_cannot_be_is_refused(seconds: int) -> None:
    content = json.dumps({"access_token": "x", "expires_in": seconds}).encode()
    with pytest.raises(ClientError, match="not as a broker does"):
        exchanged(content)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 30_000, b"\xff", b"9" * 10_000])
def test_an_answer_that_cannot_be_read_is_a_sentence(content: bytes) -> None:
    with pytest.raises(ClientError, match="not as a broker does"):
        exchanged(content)


def test_an_answer_that_unpacks_to_a_large_one_costs_no_memory() -> None:
    inner = gzip.compress(bytes(200 * 1024 * 1024))
    bomb = gzip.compress(inner)
    asked: list[str] = []

    async def reply(path: str, writer: asyncio.StreamWriter) -> None:
        asked.append(path)
        writer.write(http_answer(bomb, "200 OK", "Content-Encoding: gzip, gzip"))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        in_thread(lambda: raw_server(reply)) as (url, _),
        Sender(pause=lambda _seconds: None) as sender,
        pytest.raises(ClientError, match="compressed"),
    ):
        sender.send("GET", url)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024  # KiB
    assert asked == ["/"]


def test_an_answer_whose_head_never_ends_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(http, "_TRIES", 1)

    async def reply(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(100):
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.1)

    began = time.monotonic()
    with (
        in_thread(lambda: raw_server(reply)) as (url, _),
        Sender(pause=lambda _seconds: None) as sender,
        pytest.raises(ClientError, match="did not end in time"),
    ):
        sender.send("GET", url)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_gateway_on_this_machine_is_not_asked_through_a_proxy(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a proxy, tokens would leave the machine in clear."""

    async def reply(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(http_answer("here"))

    with (
        in_thread(lambda: raw_server(reply)) as (url, _),
        in_thread(lambda: raw_server(reply)) as (proxy, seen),
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with Sender() as sender:
            assert sender.send("GET", url.replace("127.0.0.1", host)).text == "here"
        assert seen == []


def test_no_error_writes_to_the_terminal() -> None:
    hostile = "It takes \x1b]0;owned\x07\u202e\r\x9b31m."
    with pytest.raises(click.ClickException) as caught, told_errors():
        raise ClientError(hostile, f"One line.\n\n  {hostile}")
    lines = caught.value.message.split("\n")
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
    assert lines[3].startswith("  It takes")
