"""Connections to other machines, through a real proxy and to real TLS servers on loopback."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from federation.audit.webhook import NotDelivered, Webhook
from federation.client import ClientError
from federation.client.connection import open_async_client, open_client
from federation.client.http import Sender
from federation.gateway.upstream import Tls
from federation.issuers.fetch import FetchFailed
from federation.issuers.fetch import open_client as open_key_client
from federation.outbound import Outbound, trusting
from federation.outbound.failures import failure
from federation.sign_on.bounded import unreachable
from federation.sources.kubernetes.connection import Connection, Trouble
from tests.harness.certificates import Authority
from tests.harness.connect_proxy import ConnectProxy, connect_proxy
from tests.harness.process import in_thread
from tests.harness.raw_server import http_answer, raw_server

NAME = "server.elsewhere.example"
PASSWORD = "s3cr3t"
Environ = dict[str, str]


@dataclass(frozen=True)
class Network:
    """A server with TLS, a proxy that leads to it, and the CA of both."""

    authority: Authority
    server: str
    """Its URL on this machine. It is also every `*.elsewhere.example`, through the proxy."""
    paths: list[str]
    proxy: ConnectProxy

    @property
    def environ(self) -> Environ:
        """The environment of a program in this network."""
        return {"HTTPS_PROXY": self.proxy.url, "SSL_CERT_FILE": str(self.authority.certificate)}


@contextmanager
def network(folder: Path, *, user: str = "", tls_to_proxy: bool = False) -> Iterator[Network]:
    authority = Authority(folder / "authority")

    async def reply(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(http_answer("{}"))

    @asynccontextmanager
    async def both() -> AsyncIterator[Network]:
        tls = authority.server() if tls_to_proxy else None
        async with (
            raw_server(reply, tls=authority.server()) as (server, paths),
            connect_proxy(httpx2.URL(server).port or 0, user=user, tls=tls) as proxy,
        ):
            yield Network(authority, server, paths, proxy)

    with in_thread(both) as there:
        yield there


# Each part that reaches other machines: asks for a URL in an environment, and raises what it does


async def fetching_keys(url: str, environ: Environ, _folder: Path) -> None:
    async with open_key_client(None, Outbound.of(environ)) as client:
        try:
            await client.get(url)
        except httpx2.HTTPError as error:
            raise FetchFailed(failure(error)) from error


async def delivering(url: str, environ: Environ, _folder: Path) -> None:
    webhook = Webhook(url, outbound=Outbound.of(environ))
    try:
        await webhook.post(b"[]", "id")
    finally:
        await webhook.aclose()


async def exchanging(url: str, environ: Environ, _folder: Path) -> None:
    with Sender(open_client(environ), pause=lambda _seconds: None) as sender:
        await asyncio.to_thread(sender.send, "GET", url)


async def signing_on(url: str, environ: Environ, _folder: Path) -> None:
    async with open_async_client(environ) as client:
        try:
            await client.get(url)
        except httpx2.HTTPError as error:
            raise unreachable(error, url) from error


async def following(url: str, environ: Environ, folder: Path) -> None:
    kubeconfig = {
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": url.rstrip("/")}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    connection = Connection.of_kubeconfig(path, "openfaas", Outbound.of(environ))
    try:
        await connection.request("GET", "/api")
    finally:
        await connection.aclose()


Part = Callable[[str, Environ, Path], Awaitable[None]]
every_part = pytest.mark.parametrize(
    "part",
    [fetching_keys, delivering, exchanging, signing_on, following],
    ids=lambda part: part.__name__,
)
REFUSED = (httpx2.TransportError, FetchFailed, NotDelivered, ClientError, Trouble)


def ask(part: Part, url: str, environ: Environ, folder: Path) -> None:
    async def story() -> None:
        await part(url, environ, folder)

    asyncio.run(story())


def refused(part: Part, url: str, environ: Environ, folder: Path) -> str:
    with pytest.raises(REFUSED) as caught:
        ask(part, url, environ, folder)
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


@every_part
def test_each_part_goes_through_the_proxy_and_trusts_the_ca_of_the_environment(
    tmp_path: Path, part: Part
) -> None:
    with network(tmp_path) as there:
        ask(part, f"https://{NAME}/", there.environ, tmp_path)
        assert there.proxy.asked == [f"{NAME}:443"]
        told = refused(part, f"https://{NAME}/", {"HTTPS_PROXY": there.proxy.url}, tmp_path)
        assert "its certificate is not trusted" in told
        assert len(there.paths) == 1


@every_part
def test_each_part_asks_an_exception_and_this_machine_directly(tmp_path: Path, part: Part) -> None:
    with network(tmp_path) as there:
        ask(part, f"{there.server}/", there.environ, tmp_path)
        # No DNS knows the name, so to ask directly is to fail.
        refused(part, f"https://{NAME}/", {**there.environ, "NO_PROXY": ".example"}, tmp_path)
        assert there.proxy.asked == []
        assert len(there.paths) == 1


@every_part
def test_each_part_sends_the_password_to_the_proxy_alone(tmp_path: Path, part: Part) -> None:
    with network(tmp_path, user=f"alice:{PASSWORD}/@") as there:
        address = there.proxy.url.removeprefix("http://")
        with_password = f"http://alice:{PASSWORD}%2F%40@{address}"
        environ = {**there.environ, "HTTPS_PROXY": with_password}
        ask(part, f"https://{NAME}/", environ, tmp_path)
        assert there.proxy.credentials == [f"alice:{PASSWORD}/@"]
        told = refused(part, f"https://{NAME}/", there.environ, tmp_path)
        assert "the proxy asks for a user and password" in told
        assert f"(through the proxy {address} of" in told


@every_part
def test_each_part_names_a_proxy_that_does_not_answer(tmp_path: Path, part: Part) -> None:
    wrong = {"ALL_PROXY": f"http://alice:{PASSWORD}@127.0.0.1:1"}
    told = refused(part, f"https://{NAME}/", wrong, tmp_path)
    assert "(through the proxy 127.0.0.1:1 of ALL_PROXY)" in told


@every_part
def test_each_part_verifies_a_proxy_that_speaks_tls(tmp_path: Path, part: Part) -> None:
    with network(tmp_path, tls_to_proxy=True) as there:
        ask(part, f"https://{NAME}/", there.environ, tmp_path)
        assert there.proxy.asked == [f"{NAME}:443"]
        refused(part, f"https://{NAME}/", {"HTTPS_PROXY": there.proxy.url}, tmp_path)
        assert there.proxy.asked == [f"{NAME}:443"]


@every_part
def test_each_part_asks_the_proxy_for_an_address_in_brackets(tmp_path: Path, part: Part) -> None:
    with network(tmp_path) as there:
        ask(part, "https://[2001:db8::1]/", there.environ, tmp_path)
        assert there.proxy.asked == ["[2001:db8::1]:443"]


def test_a_plain_request_names_an_address_in_brackets(tmp_path: Path) -> None:
    with network(tmp_path) as there, Outbound.of({"ALL_PROXY": there.proxy.url}).client() as client:
        with suppress(httpx2.TransportError):  # the server behind this proxy speaks TLS only
            client.get("http://[2001:db8::1]:8080/x")
        assert there.proxy.asked == ["http://[2001:db8::1]:8080/x"]


@every_part
def test_no_part_looks_at_the_environment_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: Part
) -> None:
    with network(tmp_path) as there:
        for name, value in there.environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ALL_PROXY", "socks5://proxy.example")
        refused(part, f"{there.server}/", {}, tmp_path)
        refused(part, f"https://{NAME}/", {}, tmp_path)
        assert there.proxy.asked == []


# CAs


def test_the_ca_of_one_server_is_trusted_for_it_alone(tmp_path: Path) -> None:
    """A proxy that speaks TLS is verified by the machine's CAs, not by those of one issuer."""
    with network(tmp_path, tls_to_proxy=True) as there:
        pem = there.authority.certificate.read_text("ascii")
        outbound = Outbound.of({"HTTPS_PROXY": there.proxy.url})
        with outbound.client(ca=pem) as client:
            client.get(there.server)
            with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
                client.get(f"https://{NAME}/")


def test_a_ca_without_key_identifiers_is_trusted_on_each_version_of_python(tmp_path: Path) -> None:
    """`ssl.create_default_context` refuses it since Python 3.13."""
    with network(tmp_path) as there:
        certificate = there.authority.certificate
        outbound = Outbound.of({"SSL_CERT_FILE": str(certificate)})
        for context in (
            trusting(certificate),
            trusting(certificate.read_text("ascii")),
            outbound.context(),
            Tls(certificate).context(),
            Tls(trust=outbound.trust).context(),
        ):
            assert not context.verify_flags & ssl.VERIFY_X509_STRICT
            with Outbound().client(context=context) as client:
                client.get(there.server)
        assert not Outbound().context().verify_flags & ssl.VERIFY_X509_STRICT


def test_a_server_with_another_name_is_refused(tmp_path: Path) -> None:
    with (
        network(tmp_path) as there,
        Outbound.of(there.environ).client() as client,
        pytest.raises(httpx2.ConnectError, match="certificate is not valid for"),
    ):
        client.get("https://server.other.example/")


def test_secrets_of_tls_are_written_to_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ssl.create_default_context` obeys SSLKEYLOGFILE: who reads the file, reads the tokens."""
    log = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    with network(tmp_path) as there, Outbound.of(there.environ).client() as client:
        client.get(there.server)
        client.get(f"https://{NAME}/")
    assert not log.exists()
