"""Clients that send one request after another, and tell of each that was not answered."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["Load", "under_load"]

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Load:
    """What came of the requests so far."""

    statuses: list[int] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """Requests that were sent on an accepted connection and not answered."""
    not_accepted: int = 0
    """Connections that were reset before their first answer. The client connects again."""
    closed_with_warning: int = 0
    """Connections whose last answer said that it is the last."""
    refused: threading.Event = field(default_factory=threading.Event)
    """Set once the server takes no more connections."""


@contextmanager
def under_load(url: str, body: bytes, clients: int = 8) -> Iterator[Load]:
    """
    Half of *clients* use a connection for as long as they may, half take a new one each time.

    They stop when they are not let in any more, or on leaving.
    """
    load, stop = Load(), threading.Event()
    threads = [
        threading.Thread(target=_client, args=(url, body, place % 2 == 0, load, stop))
        for place in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _client(url: str, body: bytes, keeps: bool, load: Load, stop: threading.Event) -> None:
    place = urlsplit(url)
    headers: Mapping[str, str] = FORM if keeps else {**FORM, "Connection": "close"}
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        while not stop.is_set():
            is_new = connection.sock is None
            try:
                if is_new:
                    connection.connect()
                connection.request("POST", place.path, body, headers)
                answer = connection.getresponse()
            except ConnectionRefusedError:
                raise
            except ConnectionError:
                if not is_new:
                    raise
                load.not_accepted += 1
                connection.close()
                continue
            answer.read()
            load.statuses.append(answer.status)
            if answer.getheader("Connection") == "close":
                load.closed_with_warning += keeps
                connection.close()
    except ConnectionRefusedError:
        load.refused.set()
    except (OSError, http.client.HTTPException) as error:
        load.dropped.append(repr(error))
    finally:
        connection.close()
