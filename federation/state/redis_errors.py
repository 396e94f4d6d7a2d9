"""
Sentences for the errors of Redis and of its client, each with the likely cause and what to do.

An error either passes, as during a failover, or shows that this Redis cannot be used. Texts of the
client are not shown, because they may hold the URL; of an answer of Redis its first part is.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MaxConnectionsError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["ERRORS", "TIMEOUT_SECONDS", "answer", "told", "unusable_by"]

TIMEOUT_SECONDS = 2.0
_MESSAGE_CHARS = 200
_CAUSES = 5

ERRORS = (
    RedisError,
    RedisClusterException,
    OSError,
    TimeoutError,
    RuntimeError,  # of uvloop, if a connection is closed while the client begins to use it
)
"""Every error that a question to Redis may end with."""

_PASSING: tuple[tuple[type[Exception], str], ...] = (
    (ReadOnlyError, "it is a read-only replica: name the primary, or wait for the failover to end"),
    (OutOfMemoryError, "it is full, and refuses writes: give it more memory (maxmemory)"),
    (BusyLoadingError, "it is still loading its data"),
    (ClusterDownError, "its cluster is down: a node is missing, or slots belong to no node"),
    (AskError, "its cluster is moving slots"),  # and MovedError
    (TryAgainError, "its cluster is moving slots"),
)
"""Answers of a Redis that can be used a little later."""

_NEEDED = "it needs the keys {federation}:* and the commands that docs/deploy.md lists under Redis"
_NOT_TRUSTED = (
    "its certificate is not trusted: install its CA on this machine, or name it with"
    " ?ssl_ca_certs=FILE, and name the host as the certificate does"
)
_NO_ANSWER = (
    f"no answer within {TIMEOUT_SECONDS:g} s: check its address, the firewalls between, and whether"
    " it speaks TLS (rediss://) at this port"
)
_UNREACHABLE: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, _NOT_TRUSTED),
    (ssl.SSLError, "TLS failed: check whether it speaks TLS (rediss://) at this port"),
    (socket.gaierror, "its host name is not known here: check the name and the DNS"),
    (ConnectionRefusedError, "it refuses the connection: check that it runs, and its port"),
    (TimeoutError, _NO_ANSWER),
    (RedisTimeoutError, _NO_ANSWER),
    (MaxConnectionsError, "all connections to it are busy"),
)


def unusable_by(error: BaseException) -> str | None:
    """Return why a Redis that answers with *error* cannot be used; None if the error may pass."""
    if isinstance(error, RedisClusterException):
        answers = (each for each in _causes(error) if isinstance(each, ResponseError))
        return next((why for each in answers if (why := unusable_by(each))), None)
    if isinstance(error, AuthenticationError | AuthorizationError):
        return "it does not accept the user and password of the URL"
    if isinstance(error, tuple(kind for kind, _ in _PASSING)):
        return None
    if not isinstance(error, ResponseError):
        return None
    if isinstance(error, NoPermissionError):
        return f"its user lacks a right: {answer(error)}; {_NEEDED}"
    return f"it answered: {answer(error)}"


def told(error: BaseException) -> str:
    """Return one sentence with the cause of *error* and what to do."""
    if why := unusable_by(error):
        return why
    chain = tuple(_causes(error))
    for kind, sentence in (*_PASSING, *_UNREACHABLE):
        if any(isinstance(each, kind) for each in chain):
            return sentence
    if any(isinstance(each, RedisConnectionError | OSError) for each in chain):
        return (
            "the connection failed: check its address, and whether it speaks TLS (rediss://) at"
            " this port"
        )
    if isinstance(error, RedisClusterException):
        return "its cluster cannot be used: slots belong to no node, or no node can be reached"
    return f"the client failed with {type(error).__name__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and what led to it."""
    found: BaseException | None = error
    for _ in range(_CAUSES):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def answer(error: BaseException) -> str:
    """The first part of what Redis answered. Behind a semicolon it would pass for our advice."""
    # Of an unknown command the answer goes on with its arguments, which is a whole script.
    return str(error).partition(", with args")[0][:_MESSAGE_CHARS].replace(";", ",")
