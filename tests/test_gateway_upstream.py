"""The sample upstream answers as an OpenFaaS gateway does."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx2
import pytest

from federation.demo.stage import serving
from tests.harness.gateway_request import Wire
from tests.harness.openfaas import PASSWORD, USER, SampleUpstream

Result = TypeVar("Result")
AUTH = (USER, PASSWORD)
GATEWAY = "http://gateway.example.com"


def with_upstream(
    use: Callable[[httpx2.AsyncClient, SampleUpstream], Awaitable[Result]],
    *,
    auth: tuple[str, str] | None = AUTH,
) -> Result:
    """Call *use* with a client of a fresh upstream, and return its result."""

    async def run() -> Result:
        sample = SampleUpstream()
        transport = httpx2.ASGITransport(sample.app)
        async with httpx2.AsyncClient(transport=transport, base_url=GATEWAY, auth=auth) as client:
            return await use(client, sample)

    return asyncio.run(run())


def answers(*requests: tuple[str, str] | tuple[str, str, object]) -> list[httpx2.Response]:
    """The answers to *requests* (method, target, JSON body), one after the other."""

    async def use(client: httpx2.AsyncClient, _sample: SampleUpstream) -> list[httpx2.Response]:
        return [
            await client.request(method, target, json=body[0] if body else None)
            for method, target, *body in requests
        ]

    return with_upstream(use)


def statuses(*requests: tuple[str, str] | tuple[str, str, object]) -> list[int]:
    return [answer.status_code for answer in answers(*requests)]


FUNCTION = {"service": "figlet", "image": "registry.example.com/figlet:1", "namespace": "dev"}
DEPLOY = ("POST", "/system/functions", FUNCTION)
NAMESPACE = {"name": "dev2", "labels": {"openfaas": "1"}}


def test_a_function_is_deployed_updated_described_scaled_and_removed() -> None:
    *_, listed, described, scaled, _, removed, gone = answers(
        ("PUT", "/system/functions", FUNCTION),
        DEPLOY,
        ("PUT", "/system/functions", {**FUNCTION, "labels": {"a": "b"}}),
        ("GET", "/system/functions?namespace=dev"),
        ("GET", "/system/function/figlet?namespace=dev&usage=1"),
        (
            "POST",
            "/system/scale-function/figlet",
            {**FUNCTION, "serviceName": "figlet", "replicas": 3},
        ),
        ("GET", "/system/function/figlet?namespace=dev"),
        ("DELETE", "/system/functions", {"functionName": "figlet", "namespace": "dev"}),
        ("GET", "/system/function/figlet?namespace=dev"),
    )
    assert [function["name"] for function in listed.json()] == ["figlet"]
    assert described.json()["labels"] == {"a": "b"}
    assert described.json()["usage"]["totalMemoryBytes"] > 0
    assert (scaled.status_code, removed.status_code, gone.status_code) == (202, 202, 404)


@pytest.mark.parametrize(
    ("requests", "last"),
    [
        pytest.param([("PUT", "/system/functions", FUNCTION)], 404, id="update of no function"),
        pytest.param([DEPLOY], 202, id="deploy"),
        pytest.param([DEPLOY, DEPLOY], 409, id="deploy twice"),
        pytest.param([DEPLOY, ("PUT", *DEPLOY[1:])], 202, id="update"),
        pytest.param(
            [("POST", "/system/functions", {**FUNCTION, "namespace": "nowhere"})],
            400,
            id="deploy to no namespace",
        ),
        pytest.param([("POST", "/system/functions", [])], 400, id="deploy of a list"),
        pytest.param([("POST", "/system/functions", {"image": "i"})], 400, id="deploy of nothing"),
        pytest.param(
            [("DELETE", "/system/functions", {"functionName": "x"})], 404, id="removal of nothing"
        ),
        pytest.param([("GET", "/system/functions?namespace=nowhere")], 400, id="list of nowhere"),
        pytest.param([("GET", "/system/logs?name=x")], 501, id="logs of nothing"),
        pytest.param(
            [DEPLOY, ("GET", "/system/logs?name=figlet&namespace=dev&tail=x")], 422, id="odd tail"
        ),
        pytest.param([("GET", "/function/x.dev")], 404, id="a call of nothing"),
        pytest.param([DEPLOY, ("POST", "/async-function/figlet.dev")], 202, id="a call for later"),
        pytest.param([("POST", "/system/namespace/", NAMESPACE)], 201, id="namespace"),
        pytest.param([("POST", "/system/namespace", NAMESPACE)], 404, id="no trailing slash"),
        pytest.param(
            [("POST", "/system/namespace/", {"name": "dev2"})], 400, id="namespace without label"
        ),
        pytest.param(
            [("DELETE", "/system/namespace/dev", NAMESPACE)], 400, id="two names of a namespace"
        ),
        pytest.param([("GET", "/system/namespace/dev")], 200, id="namespace described"),
        pytest.param([("GET", "/system/nothing")], 404, id="no such path"),
        pytest.param([("PATCH", "/system/functions")], 405, id="no such method"),
        pytest.param([("GET", "/healthz")], 200, id="health"),
        pytest.param([("HEAD", "/healthz")], 405, id="health by HEAD"),
    ],
)
def test_each_answer_has_the_status_of_the_real_one(
    requests: list[tuple[str, str, object]], last: int
) -> None:
    assert statuses(*requests)[-1] == last


def test_secrets_are_listed_by_name_and_never_by_value() -> None:
    created, listed, updated, elsewhere, removed, again = answers(
        ("POST", "/system/secrets", {"name": "s1", "namespace": "dev", "value": "hidden"}),
        ("GET", "/system/secrets?namespace=dev"),
        ("PUT", "/system/secrets", {"name": "s1", "namespace": "dev", "value": "other"}),
        ("DELETE", "/system/secrets", {"name": "s1", "namespace": "dev"}),
        ("DELETE", "/system/secrets?namespace=dev", {"name": "s1"}),
        ("DELETE", "/system/secrets?namespace=dev", {"name": "s1"}),
    )
    assert listed.json() == [{"name": "s1", "namespace": "dev"}]
    assert "hidden" not in listed.text
    assert (created.status_code, updated.status_code) == (202, 202)
    assert (elsewhere.status_code, removed.status_code, again.status_code) == (404, 202, 404)


def test_a_namespace_goes_with_all_that_it_holds() -> None:
    inside = {"service": "f", "image": "i", "namespace": "dev2"}
    *_, before, _, after, listed = answers(
        ("POST", "/system/namespace/", NAMESPACE),
        ("POST", "/system/functions", inside),
        ("GET", "/system/namespaces"),
        ("DELETE", "/system/namespace/dev2", NAMESPACE),
        ("GET", "/system/namespaces"),
        ("GET", "/system/functions?namespace=dev2"),
    )
    assert set(before.json()) - set(after.json()) == {"dev2"}
    assert listed.status_code == 400


def test_it_reads_loosely_as_a_go_server_does() -> None:
    """So that a request which slips past a proxy has its effect here."""

    async def use(client: httpx2.AsyncClient, sample: SampleUpstream) -> list[str]:
        loose = b'{"service":"f","image":"i","namespace":"dev","name\xc5\xbfpace":"staging"}'
        await client.post("/system/functions", content=loose)
        await client.post("/system/functions", json={"service": "g", "image": "i"})
        listed = await client.get("/system/functions?namespace=staging&namespace=dev")
        logs = await client.get("/system/logs?name=f&namespace=dev&namespace=staging")
        assert logs.status_code == 200
        assert ("openfaas-fn", "g") in sample.functions
        return [function["name"] for function in listed.json()]

    assert with_upstream(use) == ["f"]


@pytest.mark.parametrize("auth", [None, ("admin", "wrong"), ("other", AUTH[1])])
def test_the_api_asks_for_a_password_and_functions_do_not(auth: tuple[str, str] | None) -> None:
    async def use(client: httpx2.AsyncClient, _sample: SampleUpstream) -> list[httpx2.Response]:
        paths = ["/system/info", "/system/nothing", "/healthz", "/function/x.dev"]
        return [await client.get(path) for path in paths]

    answered = with_upstream(use, auth=auth)
    assert [a.status_code for a in answered] == [401, 401, 200, 404]
    assert answered[0].headers["www-authenticate"].startswith("Basic")


def test_info_is_wrapped_as_the_gateway_wraps_it() -> None:
    [answer] = answers(("GET", "/system/info"))
    info = answer.json()
    assert set(info) == {"arch", "provider", "version"}
    assert set(info["provider"]) == {"provider", "version", "orchestration"}


def test_a_function_gives_back_what_it_was_sent_or_as_much_as_was_asked() -> None:
    async def use(client: httpx2.AsyncClient, sample: SampleUpstream) -> None:
        await client.post("/system/functions", json=FUNCTION)
        echoed = await client.put("/function/figlet.dev/a/b", content=b"hello")
        assert echoed.content == b"hello"
        large = await client.post("/function/figlet.dev", content=bytes(3_000_000))
        assert large.headers["x-received-bytes"] == "3000000"
        assert len(large.content) == 1024 * 1024
        much = await client.get("/function/figlet.dev?bytes=150000")
        assert much.content == bytes(150_000)
        assert sample.functions["dev", "figlet"].invocations == 3

    with_upstream(use)


def test_what_was_received_is_remembered_within_bounds() -> None:
    async def use(client: httpx2.AsyncClient, sample: SampleUpstream) -> None:
        await client.post("/system/functions", json=FUNCTION)
        await client.post("/function/figlet.dev/a%20b?c=%20", content=b"x" * 200_000)
        last = sample.received[-1]
        assert (last.method, last.target) == ("POST", b"/function/figlet.dev/a%20b?c=%20")
        assert len(last.body) == 64 * 1024
        assert dict(last.headers)[b"host"] == b"gateway.example.com"
        assert json.loads(sample.received[0].body) == FUNCTION
        assert "x" * 20 not in repr(last)
        for _ in range(1100):
            sample.received.append(last)
        assert len(sample.received) == 1000

    with_upstream(use)


def test_logs_are_lines_of_json_the_last_of_them_and_since_a_time() -> None:
    async def use(client: httpx2.AsyncClient, sample: SampleUpstream) -> list[list[str]]:
        await client.post("/system/functions", json=FUNCTION)
        for number in range(3):
            sample.functions["dev", "figlet"].log(f"line {number}")
        queries = ["", "&tail=2", "&tail=-1", "&since=2999-01-01T00:00:00Z", "&follow=false"]
        got = []
        for query in queries:
            answer = await client.get(f"/system/logs?name=figlet&namespace=dev{query}")
            assert answer.headers["content-type"] == "application/x-ndjson"
            got.append([json.loads(line)["text"] for line in answer.text.splitlines()])
        return got

    everything = ["deployed figlet", "line 0", "line 1", "line 2"]
    assert with_upstream(use) == [everything, everything[-2:], everything, [], everything]


def test_followed_logs_come_as_they_are_written_and_end_with_the_listener_or_the_function() -> None:
    async def run() -> None:
        sample = SampleUpstream()
        app = sample.app
        listener = socket.create_server(("127.0.0.1", 0))
        url = "http://{}:{}".format(*listener.getsockname())
        async with (
            serving(app, listener),
            httpx2.AsyncClient(base_url=url, auth=AUTH, timeout=5) as client,
        ):
            await client.post("/system/functions", json=FUNCTION)
            function = sample.functions["dev", "figlet"]
            logs = "/system/logs?name=figlet&namespace=dev&follow=true"
            async with client.stream("GET", logs) as stream:
                lines = stream.aiter_lines()
                assert json.loads(await anext(lines))["text"] == "deployed figlet"
                function.log("news")
                line: dict[str, Any] = json.loads(await anext(lines))
                assert line["text"] == "news"
                assert (line["name"], line["namespace"]) == ("figlet", "dev")
            await until(lambda: sample.following == 0)
            assert not function.listeners
            async with client.stream("GET", logs) as stream:
                removal = {"functionName": "figlet", "namespace": "dev"}
                await client.request("DELETE", "/system/functions", json=removal)
                assert len([line async for line in stream.aiter_lines()]) == 2

    asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    """Wait a few seconds for *holds* to become true."""
    for _ in range(400):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not become true")


def test_canonical_requests_have_the_effect_that_was_decided_about() -> None:
    """Wherever this upstream looks for a namespace, it finds the one that was asked about."""
    steps = [
        Wire("POST", "/system/functions?namespace=dev", {"service": "f", "image": "i"}),
        Wire("POST", "/system/scale-function/f?namespace=dev", {"replicas": 4}),
        Wire("POST", "/system/secrets", {"name": "s", "namespace": "dev", "value": "v"}),
        Wire("DELETE", "/system/secrets", {"name": "s", "namespace": "dev"}),
        Wire("GET", "/system/logs?name=f&namespace=dev"),
        Wire("GET", "/function/f.dev"),
        Wire("DELETE", "/system/functions?namespace=dev", {"functionName": "f"}),
    ]

    async def use(client: httpx2.AsyncClient, sample: SampleUpstream) -> None:
        for wire in steps:
            call = wire.call()
            target = call.target.decode("ascii")
            answer = await client.request(call.method, target, content=call.body)
            assert answer.status_code in {200, 202}, target
            assert sample.received[-1].target == call.target
            assert {place[0] for place in (*sample.functions, *sample.secrets)} <= {"dev"}
        assert not sample.functions
        assert not sample.secrets

    with_upstream(use)
