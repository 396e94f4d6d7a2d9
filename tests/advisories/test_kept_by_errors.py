"""
No refused request waits for the garbage collector.

An exception that a function of its own traceback names holds itself, and with it all that was read
of the request. The collector keeps away while documents are read, and never looks at what was there
then: a caller could fill the memory with requests that are refused.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.errors import HttpError
from tests.harness.gateway import Front


def errors() -> Iterator[HttpError]:
    """Those that are alive."""
    return (found for found in gc.get_objects() if isinstance(found, HttpError))


REQUESTS = {
    "an invalid token": ("GET", "/system/functions", "x.y.z", b"", 401),
    "no token": ("GET", "/system/functions", None, b"", 401),
    "no route": ("GET", "/nothing", "", b"", 403),
    "a body that is no JSON": ("POST", "/system/functions", "", b"{" + b" " * 100_000, 400),
    "no token at the API": ("GET", "/federation/v1/whoami", None, b"", 401),
    "an invalid token at the API": ("GET", "/federation/v1/whoami", "x.y.z", b"", 401),
    "a token that was not issued": ("POST", "/oauth/token", None, b"subject_token=x", 400),
}


@pytest.mark.parametrize(
    ("method", "target", "token", "body", "status"), REQUESTS.values(), ids=REQUESTS
)
@pytest.mark.usefixtures("without_collector")
def test_a_refusal_is_freed_at_once(
    tmp_path: Path, method: str, target: str, token: str | None, body: bytes, status: int
) -> None:
    front = Front(tmp_path)
    before = list(errors())
    sent = front.grant(("*", "*")) if token == "" else token
    json = target.startswith("/system")
    kind = "application/json" if json else "application/x-www-form-urlencoded"
    headers = {"content-type": kind} if body else {}
    answer = front.call(method, target, sent, content=body, headers=headers)
    assert answer.status_code == status
    assert list(errors()) == before
