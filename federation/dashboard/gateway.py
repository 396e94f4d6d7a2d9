"""
A client of the OpenFaaS gateway behind the broker, with the access token of the person who asks.

The broker authorizes each call. Names are checked here too, so that a page's address cannot
become another path of the gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import httpx2
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from federation.dashboard.connection import (
    ERROR_BYTES,
    KIB,
    Answer,
    Connection,
    NotThere,
    refuse,
)
from federation.gateway import values
from federation.jose import strict_json

_LIST_BYTES = 8 * 1024 * KIB
"""A function takes about 1 KiB in a list."""
_ONE_BYTES = 512 * KIB
RESULT_BYTES = 64 * KIB
"""The most that is shown of a function's answer."""
LINE_BYTES = 16 * KIB
"""The longest line of a log stream; what is longer is passed over."""
INVOKE_SECONDS = 60.0


class Function(BaseModel):
    """A function as the gateway shows it. Members that it has not (`null`) are empty."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    name: str
    namespace: str = ""
    image: str = ""
    env_process: str = Field("", alias="envProcess")
    env_vars: dict[str, str] = Field(default_factory=dict, alias="envVars", repr=False)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    secrets: list[str] = Field(default_factory=list)
    constraints: list[str] = Field(default_factory=list)
    limits: dict[str, str] = Field(default_factory=dict)
    requests: dict[str, str] = Field(default_factory=dict)
    read_only: bool = Field(False, alias="readOnlyRootFilesystem")
    invocations: float = Field(0, alias="invocationCount")
    replicas: int = 0
    available: int = Field(0, alias="availableReplicas")
    created: str = Field("", alias="createdAt")
    usage: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, members: object) -> object:
        if isinstance(members, dict):  # Go writes an empty map or list as null
            return {name: value for name, value in members.items() if value is not None}
        return members

    @property
    def scaling(self) -> bool:
        """True if the wanted number of replicas and the ready ones differ."""
        return self.replicas != self.available

    @property
    def state(self) -> str:
        """One word: `stopped`, `scaling` or `ready`."""
        if not self.replicas and not self.available:
            return "stopped"
        return "scaling" if self.scaling else "ready"

    @property
    def environment(self) -> list[str]:
        """The names of its environment variables. Their values may be secrets."""
        return sorted(self.env_vars)

    def within(self, namespace: str) -> Function:
        """This function. An older gateway leaves out a namespace that it was asked for."""
        return self if self.namespace else self.model_copy(update={"namespace": namespace})


class LogLine(BaseModel):
    """A line of a function's log."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    instance: str = ""
    timestamp: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """The namespace and name of a function, which may stand in a path."""

    namespace: str
    name: str

    @classmethod
    def of(cls, namespace: str, name: str) -> Place:
        """The place of these names. Raises: NotThere if no function can have them."""
        try:
            return cls(values.namespace(namespace), values.name(name))
        except ValueError:
            raise NotThere("No function can have this name.") from None

    @property
    def resource(self) -> str:
        """As documents write it."""
        return f"{self.namespace}:{self.name}"


@dataclass(frozen=True, slots=True)
class Gateway:
    """The gateway's API behind the broker. Every method raises BrokerError."""

    connection: Connection

    async def namespaces(self, token: str) -> list[str]:
        """The namespaces that the person may see."""
        return await self.connection.json(
            "GET", "/system/namespaces", token, reads=_names, most_bytes=_ONE_BYTES
        )

    async def functions(self, token: str, namespace: str) -> list[Function]:
        """The functions in *namespace*."""

        def listed(answer: object) -> list[Function]:
            functions = _FUNCTIONS.validate_python(answer or [])
            return [function.within(namespace) for function in functions]

        return await self.connection.json(
            "GET",
            "/system/functions",
            token,
            reads=listed,
            query={"namespace": namespace},
            most_bytes=_LIST_BYTES,
        )

    async def function(self, token: str, place: Place) -> Function:
        """One function with its usage."""
        found = await self.connection.json(
            "GET",
            f"/system/function/{place.name}",
            token,
            reads=Function.model_validate,
            query={"namespace": place.namespace, "usage": "1"},
            most_bytes=_ONE_BYTES,
        )
        return found.within(place.namespace)

    async def delete(self, token: str, place: Place) -> None:
        """Delete a function."""
        body = {"functionName": place.name, "namespace": place.namespace}
        await self._change("DELETE", "/system/functions", token, body)

    async def scale(self, token: str, place: Place, replicas: int) -> None:
        """Ask for so many replicas."""
        body = {"serviceName": place.name, "replicas": replicas, "namespace": place.namespace}
        await self._change("POST", f"/system/scale-function/{place.name}", token, body)

    async def invoke(self, token: str, place: Place, body: bytes, content_type: str) -> Answer:
        """The answer to a call, of any status: the function's own, or the broker's refusal."""
        return await self.connection.send(
            "POST",
            f"/function/{place.name}.{place.namespace}",
            token,
            content=body,
            content_type=content_type,
            most_bytes=RESULT_BYTES,
            seconds=INVOKE_SECONDS,
        )

    async def logs(
        self, token: str, place: Place, *, tail: int, follow: bool
    ) -> AsyncGenerator[LogLine, None]:
        """The last lines of a function's log and, with *follow*, those that come."""
        query = {
            "name": place.name,
            "namespace": place.namespace,
            "tail": str(tail),
            "follow": "true" if follow else "false",
        }
        async with self.connection.stream(
            "GET", "/system/logs", token, query=query, silence_seconds=None if follow else 20.0
        ) as response:
            if response.status_code >= 300:
                refuse(await _beginning(response))
            async with aclosing(_lines(response.aiter_bytes())) as lines:
                try:
                    async for line in lines:
                        yield line
                except httpx2.RemoteProtocolError:
                    # So the broker ends a log that is followed when the token has ended.
                    if not follow:
                        raise

    async def _change(self, method: str, path: str, token: str, body: object) -> None:
        answer = await self.connection.send(
            method, path, token, content=strict_json.dumps(body), most_bytes=ERROR_BYTES
        )
        if answer.status >= 300:
            refuse(answer)


async def _beginning(response: httpx2.Response) -> Answer:
    """The answer in *response*, whose body is cut where no error is longer."""
    body = bytearray()
    async with asyncio.timeout(10):
        async for chunk in response.aiter_bytes():
            body += chunk[: ERROR_BYTES - len(body)]
            if len(body) >= ERROR_BYTES:
                break
    return Answer(response.status_code, response.headers.get("content-type", ""), bytes(body))


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[LogLine, None]:
    """The lines of NDJSON. One that is no line of a log is passed over."""
    rest = bytearray()
    async for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for piece in whole:
            rest += piece[: LINE_BYTES + 1 - len(rest)]
            if line := _log_line(bytes(rest)):
                yield line
            rest = bytearray()
        rest += last[: LINE_BYTES + 1 - len(rest)]
    if line := _log_line(bytes(rest)):
        yield line


def _log_line(written: bytes) -> LogLine | None:
    if len(written) > LINE_BYTES:
        return LogLine(text=f"(A line of more than {LINE_BYTES // KIB} KiB is left out.)")
    try:
        return LogLine.model_validate(strict_json.loads_object(written))
    except ValueError:  # pydantic's error is one too
        return None


def _names(answer: object) -> list[str]:
    return sorted(_TEXTS.validate_python(answer or []))


_TEXTS = TypeAdapter(list[str])
_FUNCTIONS = TypeAdapter(list[Function])
