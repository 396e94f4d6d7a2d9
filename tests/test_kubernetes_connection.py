"""Requests to an API server: tokens that change, answers that are wrong, and kubeconfigs."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from federation.sources.kubernetes import connection as module
from federation.sources.kubernetes.access import (
    Access,
    AccessUnreadable,
    Kubeconfig,
    KubeconfigRefused,
    pod_access,
)
from federation.sources.kubernetes.connection import Connection, TooLarge, Trouble
from federation.sources.kubernetes.json_depth import MAX_DEPTH, loads_shallow
from tests.harness.certificates import Authority
from tests.harness.clock import Clock
from tests.harness.fake_kube import FakeKube, fake_kube

URL = "https://kubernetes.test"
SECRET = "s3cr3t-t0k3n"
Answering = Callable[[httpx2.Request], httpx2.Response]


def connected(
    answer: Answering, tokens: Iterator[str] | None = None, clock: Clock | None = None
) -> Connection:
    given = tokens or iter(lambda: SECRET, "")
    return Connection(
        URL,
        "openfaas",
        lambda: Access(URL, token=next(given)),
        transport=httpx2.MockTransport(answer),
        clock=clock or Clock(),
    )


async def trouble_of(connection: Connection, path: str = "/x") -> Trouble:
    with pytest.raises(Trouble) as caught:
        await connection.request("GET", path)
    await connection.aclose()
    return caught.value


def bearer(request: httpx2.Request) -> str:
    return request.headers["Authorization"].removeprefix("Bearer ")


# Tokens


def test_after_a_401_the_token_is_read_anew_and_the_request_sent_once_more() -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(bearer(request))
        return httpx2.Response(200 if seen[-1] == "new" else 401, json={"told": seen[-1]})

    async def story() -> None:
        connection = connected(answer, iter(["old", "new"]))
        assert await connection.request("GET", "/x") == {"told": "new"}
        await connection.aclose()

    asyncio.run(story())
    assert seen == ["old", "new"]


def test_a_401_to_the_newest_token_is_trouble_and_not_asked_again_at_once() -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(bearer(request))
        return httpx2.Response(401, json={"kind": "Status", "message": "Unauthorized"})

    trouble = asyncio.run(trouble_of(connected(answer)))
    assert (trouble.status, str(trouble), len(seen)) == (401, "HTTP 401: Unauthorized", 1)


def test_the_token_is_read_anew_each_minute() -> None:
    clock, seen = Clock(), []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(bearer(request))
        return httpx2.Response(200, json={})

    async def story() -> None:
        connection = connected(answer, iter(["first", "second"]), clock)
        for seconds in (0, 59, 2):
            clock.advance(seconds)
            await connection.request("GET", "/x")
        await connection.aclose()

    asyncio.run(story())
    assert seen == ["first", "first", "second"]


def test_a_stream_goes_on_while_a_new_token_is_used_for_other_requests() -> None:
    clock = Clock()

    async def pieces() -> Any:
        yield b'{"a":1}\n{"b"'
        await asyncio.sleep(0)
        yield b":2}\n"

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=pieces() if request.url.path == "/w" else b"{}")

    async def story() -> list[bytes]:
        connection = connected(answer, iter(["first", "second"]), clock)
        lines = []
        async with connection.lines("/w", {}, 5) as watched:
            async for line in watched:
                lines.append(line)
                clock.advance(61)
                if len(lines) == 1:
                    await connection.request("GET", "/x")
        await connection.aclose()
        return lines

    assert asyncio.run(story()) == [b'{"a":1}', b'{"b":2}']


def test_a_projected_token_is_read_through_its_swapped_link(tmp_path: Path) -> None:
    ca = Authority(tmp_path / "authority").certificate.read_text("ascii")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"{name}\n", "ascii")
        (tmp_path / name / "ca.crt").write_text(ca, "ascii")
    (tmp_path / "..data").symlink_to("one")
    folder = tmp_path / "mounted"
    folder.mkdir()
    for name in ("token", "ca.crt"):
        (folder / name).symlink_to(tmp_path / "..data" / name)
    assert pod_access("10.0.0.1", "443", folder).token == "one"
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert pod_access("10.0.0.1", "443", folder).token == "two"


def test_the_url_of_a_cluster_on_ipv6_has_brackets(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET, "ascii")
    (tmp_path / "ca.crt").write_bytes(Authority(tmp_path / "a").certificate.read_bytes())
    assert Connection.in_cluster("fd00::1", "443", "ns", tmp_path).url == "https://[fd00::1]:443"


@pytest.mark.parametrize("content", [b"", b"two words", b"a\r\nX-Injected: b", b"x" * 70_000])
def test_a_file_that_holds_no_token_is_refused_without_its_content(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "token").write_bytes(content)
    (tmp_path / "ca.crt").write_bytes(Authority(tmp_path / "a").certificate.read_bytes())
    with pytest.raises(AccessUnreadable) as caught:
        pod_access("10.0.0.1", "443", tmp_path)
    assert str(tmp_path / "token") in str(caught.value)
    assert "Injected" not in str(caught.value)


def test_nothing_shows_the_token() -> None:
    access = Access(URL, token=SECRET, certificate=(b"public", b"private"))
    connection = connected(lambda _request: httpx2.Response(500))
    assert SECRET not in repr(access) + repr(connection) + str(asyncio.run(trouble_of(connection)))
    assert "private" not in repr(access)


# Answers


@pytest.mark.parametrize(
    ("answer", "status", "text", "retry_after"),
    [
        (httpx2.Response(403, json={"kind": "Status", "message": "not\nyours"}), 403, r"HTTP 403: not\nyours", None),
        (httpx2.Response(429, headers={"Retry-After": "7"}, text="busy"), 429, "HTTP 429", 7.0),
        (httpx2.Response(503, headers={"Retry-After": "9" * 400}), 503, "HTTP 503", None),
        (httpx2.Response(302, headers={"Location": "https://elsewhere.test/"}), 302, "HTTP 302", None),
        (httpx2.Response(500, json={"message": "x" * 1000}), 500, "HTTP 500: " + "x" * 297 + "...", None),
        (httpx2.Response(500, json=["message"]), 500, "HTTP 500", None),
        (httpx2.Response(200, text="[]"), 0, "an answer is not a JSON object", None),
        (httpx2.Response(200, text="{"), 0, "an answer is not a JSON object", None),
    ],
    ids=["message", "429", "long-retry-after", "redirect", "long-message", "list", "no-object", "no-json"],
)  # fmt: skip
def test_a_wrong_answer_is_trouble(
    answer: httpx2.Response, status: int, text: str, retry_after: float | None
) -> None:
    trouble = asyncio.run(trouble_of(connected(lambda _request: answer)))
    assert (trouble.status, str(trouble), trouble.retry_after_seconds) == (
        status,
        text,
        retry_after,
    )


def test_a_server_that_cannot_be_reached_is_named() -> None:
    def refuse(_request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("All connection attempts failed")

    trouble = asyncio.run(trouble_of(connected(refuse)))
    told = "check the address, and whether a proxy is needed"
    assert str(trouble) == f"no connection to {URL}: {told}"


def test_cookies_are_not_kept() -> None:
    sent = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers.get("cookie"))
        return httpx2.Response(200, json={}, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    async def story() -> None:
        connection = connected(answer)
        for _ in range(2):
            await connection.request("GET", "/x")

    asyncio.run(story())
    assert sent == [None, None]


def test_a_redirect_takes_the_token_nowhere() -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        return httpx2.Response(302, headers={"Location": "https://elsewhere.test/"})

    asyncio.run(trouble_of(connected(answer)))
    assert seen == [f"{URL}/x"]


@pytest.mark.parametrize("status", [200, 500])
def test_a_compressed_answer_is_not_unpacked(status: int) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    answer = httpx2.Response(
        status, headers={"Content-Encoding": "gzip"}, stream=httpx2.ByteStream(bomb)
    )
    trouble = asyncio.run(trouble_of(connected(lambda _request: answer)))
    assert "0000" not in str(trouble)


def test_an_answer_beyond_the_bound_is_too_large() -> None:
    async def endless() -> Any:
        sent = 0
        while True:
            assert sent <= module.ANSWER_BYTES + 2**20, "it was read beyond the bound"
            sent += 2**20
            yield b" " * 2**20

    async def story() -> None:
        trouble = await trouble_of(connected(lambda _r: httpx2.Response(200, content=endless())))
        assert isinstance(trouble, TooLarge)

    asyncio.run(story())


def test_a_line_beyond_the_bound_is_too_large() -> None:
    async def endless() -> Any:
        for _ in range(module.LINE_BYTES // 2**20 + 2):
            yield b" " * 2**20
        pytest.fail("it was read beyond the bound")

    async def story() -> None:
        connection = connected(lambda _request: httpx2.Response(200, content=endless()))
        with pytest.raises(TooLarge):
            async with connection.lines("/w", {}, 5) as lines:
                assert [line async for line in lines] == []
        await connection.aclose()

    asyncio.run(story())


async def read_lines(kube: FakeKube, silence_seconds: float) -> None:
    connection = kube.connection()
    path = "/apis/iam.openfaas.com/v1/namespaces/openfaas/roles"
    params = {"watch": "1", "resourceVersion": "100", "timeoutSeconds": "5"}
    try:
        async with connection.lines(path, params, silence_seconds) as lines:
            async for _line in lines:
                kube.cut()
    finally:
        await connection.aclose()


def test_a_silent_server_is_trouble_after_a_while() -> None:
    async def story() -> None:
        async with fake_kube() as kube:
            with pytest.raises(Trouble, match="the API server is silent"):
                await read_lines(kube, silence_seconds=0.1)

    asyncio.run(story())


def test_a_cut_stream_is_trouble() -> None:
    async def story() -> None:
        async with fake_kube() as kube:
            await kube.put("Role", "deployer", {})
            with pytest.raises(Trouble):
                await read_lines(kube, silence_seconds=5)

    asyncio.run(story())


def test_a_stream_that_ends_in_the_middle_of_a_line_is_trouble() -> None:
    async def story() -> None:
        connection = connected(lambda _request: httpx2.Response(200, content=b'{"a":1}\n{"b":'))
        with pytest.raises(Trouble, match="middle of a line"):
            async with connection.lines("/w", {}, 5) as lines:
                assert [line async for line in lines] == []
        await connection.aclose()

    asyncio.run(story())


def test_a_server_that_is_not_there_is_trouble() -> None:
    async def story() -> None:
        async with fake_kube() as kube:
            connection = kube.connection()
        assert (await trouble_of(connection)).status == 0

    asyncio.run(story())


# Objects that are nested without end


def test_what_is_nested_too_deep_is_null_and_the_rest_is_read() -> None:
    deep = b"[" * 5000 + b'"]}"' + b"]" * 5000
    page = loads_shallow(b'{"items":[{"deep":' + deep + b'},{"name":"good [{"}],"end":1}')
    assert page["items"][1] == {"name": "good [{"}
    assert page["end"] == 1
    levels, inner = 0, page["items"][0]["deep"]
    while inner:
        levels, inner = levels + 1, inner[0]
    assert inner is None
    assert levels == MAX_DEPTH - 3  # the page, its items, and the object


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"[" * 5000, b'{"a":' + b"[" * 5000 + b"}"])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        loads_shallow(text)


# Kubeconfigs


def kubeconfig(
    folder: Path, user: object = None, cluster: object = None, **changes: object
) -> Path:
    content: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster or {"server": "https://10.0.0.1:6443"}}],
        "users": [{"name": "u", "user": user or {"token": SECRET}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "here",
        **changes,
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_a_kubeconfig_is_read_with_what_it_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    ca = authority.certificate.read_bytes()
    (tmp_path / "ca.pem").write_bytes(ca)
    (tmp_path / "token").write_text("renewed", "ascii")
    pair = (authority.certificate.parent / "server.pem").read_bytes()
    data = base64.b64encode(pair).decode()
    path = kubeconfig(
        tmp_path,
        {
            "token": SECRET,
            "tokenFile": "token",
            "client-certificate-data": data,
            "client-key-data": data,
        },
        {
            "server": "https://10.0.0.1:6443/k8s/",
            "certificate-authority": "ca.pem",
            "tls-server-name": "kube",
        },
    )
    assert Kubeconfig.current(path).access() == Access(
        "https://10.0.0.1:6443/k8s", ca.decode(), "renewed", (pair, pair), "kube"
    )
    connection = Connection.of_kubeconfig(path, "openfaas")
    assert connection.url == "https://10.0.0.1:6443/k8s"


@pytest.mark.parametrize(
    ("user", "cluster", "why"),
    [
        ({"exec": {"command": "aws"}}, None, "exec"),
        ({"auth-provider": {"name": "gcp"}}, None, "auth-provider"),
        ({"username": "me", "password": "x"}, None, "password"),
        ({"as": "admin"}, None, "acts as somebody else"),
        ({"client-certificate-data": "YQ=="}, None, "client-key"),
        ({"client-key-data": "%%%"}, None, "not base64"),
        ({"token": ["a"]}, None, "must be a text"),
        (None, {"server": "https://x", "insecure-skip-tls-verify": True}, "insecure"),
        (None, {"server": "https://x", "proxy-url": "http://p"}, "HTTPS_PROXY"),
        (None, {"server": "http://10.0.0.1"}, "must be https"),
        (None, {"server": "https://user:pass@x"}, "must be like"),
        (None, {"server": "https://x:port"}, "must be like"),
        (None, {"server": 7}, "must be like"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, user: object, cluster: object, why: str
) -> None:
    with pytest.raises(KubeconfigRefused, match=why):
        Connection.of_kubeconfig(kubeconfig(tmp_path, user, cluster), "openfaas")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "kind: Config", "{", "kind: Pod", "&a [*a", "kind: Config\ncurrent-context: [x]",
     "kind: Config\ncurrent-context: nowhere", "[" * 5000],
)  # fmt: skip
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(f"# {SECRET}\n{text}", "utf-8")
    with pytest.raises(KubeconfigRefused) as caught:
        Connection.of_kubeconfig(path, "openfaas")
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_kubeconfig_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigRefused, match="No such file"):
        Connection.of_kubeconfig(tmp_path / "nowhere", "openfaas")


def test_the_context_is_chosen_once(tmp_path: Path) -> None:
    chosen = Kubeconfig.current(kubeconfig(tmp_path))
    contexts = [
        {"name": "other", "context": {"cluster": "other", "user": "u"}},
        {"name": "here", "context": {"cluster": "c", "user": "u"}},
    ]
    kubeconfig(tmp_path, {"token": "new"}, contexts=contexts, **{"current-context": "other"})
    assert chosen.access() == Access("https://10.0.0.1:6443", token="new")


def test_a_kubeconfig_that_names_another_server_later_is_not_followed(tmp_path: Path) -> None:
    chosen = Kubeconfig.current(kubeconfig(tmp_path))
    kubeconfig(tmp_path, cluster={"server": "https://10.9.9.9"})
    with pytest.raises(KubeconfigRefused, match="restart the broker"):
        chosen.access()


def test_a_ca_without_a_certificate_is_refused_at_the_start(tmp_path: Path) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    data = base64.b64encode(pem.encode()).decode()
    cluster = {"server": "https://x", "certificate-authority-data": data}
    with pytest.raises(
        AccessUnreadable, match="the CA of the API server has a certificate that cannot be read"
    ):
        Connection.of_kubeconfig(kubeconfig(tmp_path, cluster=cluster), "openfaas")


def test_a_body_is_sent_as_json_of_its_type() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        told = json.loads(request.content), request.headers["Content-Type"], request.url.query
        return httpx2.Response(201, json={"told": repr(told)})

    async def story() -> dict[str, Any]:
        connection = connected(answer)
        answered = await connection.request(
            "PATCH",
            "/x",
            params={"force": "true"},
            body={"a": 1},
            content_type="application/apply-patch+yaml",
        )
        await connection.aclose()
        return answered

    assert asyncio.run(story()) == {
        "told": "({'a': 1}, 'application/apply-patch+yaml', b'force=true')"
    }
