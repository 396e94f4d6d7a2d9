"""A request to the gateway as it is on the wire, and what the broker reads from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from federation.gateway.headers import Headers
from federation.gateway.routes import Call, HealthCall, match, read

DEFAULT: Final = "openfaas-fn"


@dataclass(frozen=True)
class Wire:
    """One request. *body* is bytes, or a value for JSON. A body gets its usual headers."""

    method: str
    target: str | bytes
    body: Any = None
    headers: Headers | None = None

    def call(self, *, default_namespace: str = DEFAULT, **limits: int) -> Call:
        """The call that it asks for, which is not a health check. Raises: RequestRefused."""
        call = self.any_call(default_namespace=default_namespace, **limits)
        assert isinstance(call, Call)
        return call

    def any_call(self, *, default_namespace: str = DEFAULT, **limits: int) -> Call | HealthCall:
        """The call that it asks for. Raises: RequestRefused."""
        target = self.target if isinstance(self.target, bytes) else self.target.encode("latin-1")
        path, _, query = target.partition(b"?")
        sent = self.headers if self.headers is not None else self.usual_headers()
        matched = match(self.method, path, query, sent, **limits)
        body = self.raw_body() or b""
        return read(matched, body, default_namespace=default_namespace, **limits)

    def raw_body(self) -> bytes | None:
        """The bytes of the body."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()

    def usual_headers(self) -> Headers:
        """The headers of the body, if there is one."""
        body = self.raw_body()
        if body is None:
            return ()
        return (
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        )
