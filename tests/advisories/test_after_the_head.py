"""
What was true when a request began may end while it lasts: a token, a policy, a document.

A caller could start a deployment, or follow a log, shortly before its token is revoked, and go on
for as long as it keeps the request open.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from federation.documents.model import Policy
from tests.harness import builders
from tests.harness.builders import NOW
from tests.harness.gateway import Front, Listening, listening

pytestmark = pytest.mark.alone

DEPLOYMENT: Final = json.dumps({"service": "figlet", "image": "i:2", "namespace": "dev"}).encode()
FOLLOW: Final = "/system/logs?follow=true&name=figlet&namespace=dev"
WITHIN_SECONDS: Final = 5.0

Change = Callable[[Front], Awaitable[None]]


def policy(name: str, **statement: object) -> Policy:
    return builders.policy(name, {"action": ["Function:*"], "resource": ["dev:*"], **statement})


async def _revoke(front: Front) -> None:
    await front.state.revoke("ours", NOW + 900)


async def _expire(front: Front) -> None:
    front.clock.advance(900)


async def _remove_the_policy(front: Front) -> None:
    front.source.catalog = builders.catalog(policies=[])


async def _deny(front: Front) -> None:
    front.source.catalog = builders.catalog(policies=[policy("p", effect="Deny")])


@pytest.mark.parametrize(
    ("change", "status", "saying"),
    [
        pytest.param(_revoke, 401, "revoked", id="revoked"),
        pytest.param(_expire, 401, "expired", id="expired"),
        pytest.param(_remove_the_policy, 403, "not in force", id="policy-removed"),
        pytest.param(_deny, 403, "denied", id="policy-denies"),
    ],
)
def test_a_deployment_is_refused_if_that_happens_while_its_body_arrives(
    tmp_path: Path, change: Change, status: int, saying: str
) -> None:
    front = Front(tmp_path)
    token = front.bearing(policy("p"))

    async def slowly() -> AsyncIterator[bytes]:
        yield DEPLOYMENT[:10]
        await change(front)
        yield DEPLOYMENT[10:]

    async def story(client: httpx2.AsyncClient) -> httpx2.Response:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return await client.put("/system/functions", content=slowly(), headers=headers)

    answer = front.tell(story)
    assert (answer.status_code, front.received) == (status, [])
    assert saying in answer.text


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with listening(tmp_path_factory.mktemp("secrets"), timeout=30) as front:
        yield front


class Follower:
    """A caller that follows a log with a token of its own, whose `jti` is *name*."""

    def __init__(self, front: Listening, name: str, policy: str, seconds: float = 900) -> None:
        claims = {**front.said(), "policy": [policy], "jti": name, "exp": int(NOW + seconds)}
        self.name = name
        self._connection = socket.create_connection(("127.0.0.1", front.port))
        head = f"GET {FOLLOW} HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer {front.signed(claims)}"
        self._connection.sendall(head.encode() + b"\r\n\r\n")
        self._connection.settimeout(5)
        self.heard = self._connection.recv(65536)
        assert self.heard.startswith(b"HTTP/1.1 200 "), self.heard

    def ended(self) -> bool:
        """True if the broker closed the connection, without the last chunk of a whole answer."""
        self._connection.settimeout(0.01)
        try:
            while piece := self._connection.recv(65536):
                self.heard += piece
        except TimeoutError:
            return False
        assert b"\r\n0\r\n\r\n" not in self.heard, "it is visibly cut short"
        return True

    def close(self) -> None:
        self._connection.close()


def test_a_followed_log_ends_when_its_token_or_policy_does(front: Listening) -> None:
    front.source.catalog = builders.catalog(policies=[policy("kept"), policy("lost")])
    front.sample.functions["dev", "figlet"].log("a line")
    followers = [
        Follower(front, "kept", "kept"),
        Follower(front, "revoked", "kept"),
        Follower(front, "short", "kept", seconds=2),
        Follower(front, "lost", "lost"),
    ]
    try:
        assert not any(follower.ended() for follower in followers)
        front.revoke("revoked")
        front.clock.advance(2)
        front.source.catalog = builders.catalog(policies=[policy("kept")])
        until = time.monotonic() + WITHIN_SECONDS
        ended: set[str] = set()
        while time.monotonic() < until:
            ended |= {follower.name for follower in followers if follower.ended()}
            front.sample.functions["dev", "figlet"].log("another line")
        assert ended == {"revoked", "short", "lost"}
        assert front.sample.following == 1, "they ended upstream too"
    finally:
        for follower in followers:
            follower.close()
