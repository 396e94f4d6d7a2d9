"""The webhook's certificate: made, kept in a Secret, renewed, and agreed on by replicas."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import httpx2
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from federation.admission.certificates import (
    Generation,
    bundle,
    from_secret,
    made,
    planned,
    to_secret,
)
from federation.admission.renewal import Certificates, Place, server_context
from federation.sources.kubernetes.access import Access
from federation.sources.kubernetes.connection import Connection, Trouble
from tests.harness.process import until

NAMES = frozenset({"federation-admission.openfaas.svc", "127.0.0.1"})
NOW = datetime.now(UTC).replace(microsecond=0)
LIFETIME = timedelta(days=90)


class TestGenerations:
    def test_a_new_one_is_trusted_by_its_ca_alone_and_for_its_names(self) -> None:
        generation = made(NAMES, NOW)
        ca = x509.load_pem_x509_certificate(generation.ca)
        own = x509.load_pem_x509_certificate(generation.certificate)
        own.verify_directly_issued_by(ca)
        assert generation.names == NAMES
        assert ca.not_valid_after_utc == own.not_valid_after_utc == NOW + LIFETIME
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.critical
        assert (constraints.value.ca, constraints.value.path_length) == (True, 0)

    def test_the_key_of_the_ca_is_kept_nowhere(self) -> None:
        generation = made(NAMES, NOW)
        kept = b"".join(base64.b64decode(value) for value in to_secret([generation]).values())
        assert kept.count(b"PRIVATE KEY-----") == 2  # one key: its begin and its end
        assert "PRIVATE KEY" not in repr(generation)

    def test_each_ca_has_a_name_of_its_own(self) -> None:
        names = {
            x509.load_pem_x509_certificate(made(NAMES, NOW).ca).subject.rfc4514_string()
            for _ in range(2)
        }
        assert len(names) == 2

    def test_a_secret_gives_back_what_was_put_in(self) -> None:
        both = (made(NAMES, NOW), made(NAMES, NOW))
        assert from_secret(to_secret(both)) == both
        assert from_secret({}) == ()

    @pytest.mark.parametrize("key", ["ca.crt", "tls.crt", "tls.key"])
    @pytest.mark.parametrize(
        "value", [None, 7, "", "not base64", "YQ==", "A" * 100_000, "of another"]
    )
    def test_a_secret_that_cannot_be_used_is_as_if_it_were_empty(
        self, key: str, value: object
    ) -> None:
        data: dict[str, Any] = dict(to_secret([made(NAMES, NOW)]))
        other = to_secret([made(NAMES, NOW)])
        data[key] = other[key] if value == "of another" else value
        assert from_secret(data) == ()


class TestPlan:
    def test_the_first_is_made_at_once(self) -> None:
        (only,) = planned((), NAMES, NOW)
        assert only.usable(NAMES, NOW)

    def test_nothing_changes_until_two_thirds_of_its_life(self) -> None:
        found = (made(NAMES, NOW),)
        assert planned(found, NAMES, NOW + timedelta(days=60)) == found
        newest, before = planned(found, NAMES, NOW + timedelta(days=60, seconds=1))
        assert before == found[0]
        assert newest.expires == NOW + timedelta(days=150, seconds=1)

    def test_the_one_before_is_dropped_when_it_ends(self) -> None:
        both = (made(NAMES, NOW + timedelta(days=60)), made(NAMES, NOW))
        assert planned(both, NAMES, NOW + timedelta(days=89)) == both
        assert planned(both, NAMES, NOW + timedelta(days=90)) == both[:1]

    def test_one_that_is_for_other_names_or_another_time_is_no_use(self) -> None:
        found = (made(frozenset({"old.name.svc"}), NOW), made(NAMES, NOW - timedelta(days=91)))
        (only,) = planned(found, NAMES, NOW)
        assert only not in found


class FakeApi:
    """A Secret and a ValidatingWebhookConfiguration with their versions."""

    def __init__(self) -> None:
        self.secret: dict[str, Any] | None = {
            "metadata": {"name": "s", "resourceVersion": "1", "labels": {"a": "b"}}
        }
        self.configuration: dict[str, Any] | None = {
            "metadata": {"name": "c", "resourceVersion": "1"},
            "webhooks": [{"name": "w", "clientConfig": {"service": {}}, "failurePolicy": "Fail"}],
        }
        self.writes: list[str] = []
        self.asked: list[str] = []
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        """Called before each request with its method and path."""

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Answer as an API server."""
        self.asked.append(request.url.path)
        self.before(request.method, request.url.path)
        is_secret = "/secrets/" in request.url.path
        held = self.secret if is_secret else self.configuration
        if held is None:
            return httpx2.Response(404, json={"message": "not found"})
        if request.method == "GET":
            return httpx2.Response(200, json=held)
        sent = json.loads(request.content)
        if sent["metadata"]["resourceVersion"] != held["metadata"]["resourceVersion"]:
            return httpx2.Response(409, json={"message": "the object has been modified"})
        self.writes.append(request.method)
        if is_secret:
            assert request.method == "PUT"
            self.secret = held = deepcopy(sent)
        else:
            assert request.method == "PATCH"
            assert request.headers["content-type"] == "application/apply-patch+yaml"
            assert request.url.params["fieldManager"] == "federation-admission"
            for webhook, patched in zip(held["webhooks"], sent["webhooks"], strict=True):
                assert patched.keys() == {"name", "clientConfig"}
                assert patched["name"] == webhook["name"]
                webhook["clientConfig"].update(patched["clientConfig"])
        self.renumber(held)
        return httpx2.Response(200, json=held)

    @staticmethod
    def renumber(held: dict[str, Any]) -> None:
        """Give *held* a new version, as each change does."""
        held["metadata"]["resourceVersion"] = str(int(held["metadata"]["resourceVersion"]) + 1)

    def generations(self) -> tuple[Generation, ...]:
        """What the Secret holds."""
        assert self.secret is not None
        return from_secret(self.secret["data"])

    def trusted(self) -> bytes:
        """The CAs that API servers trust."""
        assert self.configuration is not None
        return base64.b64decode(self.configuration["webhooks"][0]["clientConfig"]["caBundle"])

    def replica(self, settle_seconds: float = 0.05) -> Certificates:
        """A replica of the webhook."""
        connection = Connection(
            "https://api.example",
            "openfaas",
            lambda: Access("https://api.example", token="t"),
            transport=httpx2.MockTransport(self.answer),
        )
        return Certificates(
            connection,
            Place("openfaas", "s", "c"),
            NAMES,
            server_context(),
            settle=timedelta(seconds=settle_seconds),
            clock=lambda: self.now,
        )

    now = NOW


def test_a_first_start_makes_a_certificate_and_lets_api_servers_trust_it() -> None:
    api = FakeApi()
    replica = api.replica()
    asyncio.run(replica.check())
    (only,) = api.generations()
    assert replica.served == only
    assert replica.trusted
    assert api.trusted() == only.ca
    assert api.secret is not None
    assert api.secret["metadata"]["labels"] == {"a": "b"}
    assert shaken_hands(replica.context, only.ca) == only.certificate


def test_a_second_look_writes_nothing() -> None:
    api = FakeApi()
    replica = api.replica()
    asyncio.run(twice(replica))
    assert api.writes == ["PUT", "PATCH"]


async def twice(replica: Certificates) -> None:
    await replica.check()
    await replica.check()


def test_a_new_certificate_is_served_only_after_api_servers_could_trust_it() -> None:
    api = FakeApi()
    api.now = NOW - timedelta(days=61)
    replica = api.replica()

    async def renew() -> None:
        await replica.check()
        (old,) = api.generations()
        api.now = NOW
        await replica.check()
        new, kept = api.generations()
        assert kept == old
        assert api.trusted() == new.ca + old.ca
        assert replica.served == old
        await asyncio.sleep(0.06)
        await replica.check()
        assert replica.served == new
        assert shaken_hands(replica.context, new.ca) == new.certificate
        api.now = NOW + timedelta(days=30)  # the old one has ended
        await replica.check()
        assert api.trusted() == new.ca

    asyncio.run(renew())


def test_a_replica_that_starts_during_a_renewal_serves_the_old_one_first() -> None:
    api = FakeApi()

    async def renew() -> None:
        await api.replica().check()
        api.now = NOW + timedelta(days=61)
        await api.replica().check()
        late = api.replica()
        await late.check()
        assert late.served == api.generations()[1]
        assert late.trusted

    asyncio.run(renew())


def test_of_two_replicas_that_renew_one_wins_and_the_other_takes_its_certificate() -> None:
    api = FakeApi()
    first, second = api.replica(), api.replica()

    def meanwhile(method: str, _path: str) -> None:
        if method == "PUT":  # of the first; the second one's comes in between
            api.before = lambda _method, _path: None
            thread = Thread(target=lambda: asyncio.run(second.check()))
            thread.start()
            thread.join()

    api.before = meanwhile
    asyncio.run(first.check())
    (only,) = api.generations()
    assert second.served == first.served == only
    assert api.writes.count("PUT") == 1
    assert api.trusted() == only.ca


def test_a_replica_that_looked_before_a_renewal_does_not_undo_it() -> None:
    api = FakeApi()
    late, renewing = api.replica(), api.replica()
    asyncio.run(late.check())
    renewing.lifetime = timedelta(days=300)  # so it thinks that it is time
    asked = len(api.asked)

    def between_its_two_looks(_method: str, _path: str) -> None:
        if len(api.asked) == asked + 2:
            api.before = lambda _method, _path: None
            thread = Thread(target=lambda: asyncio.run(renewing.check()))
            thread.start()
            thread.join()

    api.before = between_its_two_looks
    asyncio.run(late.check())
    assert len(api.generations()) == 2
    assert api.trusted() == bundle(api.generations())


def test_an_older_set_of_cas_never_replaces_a_newer_one() -> None:
    api = FakeApi()
    slow = api.replica()
    asyncio.run(slow.check())
    assert api.configuration is not None

    def changed_meanwhile(method: str, path: str) -> None:
        if method == "PATCH":
            assert api.configuration is not None
            api.renumber(api.configuration)

    api.configuration["webhooks"][0]["clientConfig"]["caBundle"] = "bmV3ZXI="
    api.before = changed_meanwhile
    with pytest.raises(Trouble, match="changes all the time"):
        asyncio.run(slow.check())
    assert api.trusted() == b"newer"


def test_a_configuration_that_was_made_anew_is_trusted_again() -> None:
    api = FakeApi()
    replica = api.replica()
    asyncio.run(replica.check())
    assert api.configuration is not None
    del api.configuration["webhooks"][0]["clientConfig"]["caBundle"]
    asyncio.run(replica.check())
    assert api.trusted() == bundle(api.generations())


def test_without_a_configuration_it_serves_and_is_not_ready() -> None:
    api = FakeApi()
    api.configuration = None
    replica = api.replica()
    with pytest.raises(Trouble, match="ValidatingWebhookConfiguration c does not exist"):
        asyncio.run(replica.check())
    assert replica.served is not None
    assert not replica.trusted


def test_an_emptied_secret_is_filled_and_served_at_once() -> None:
    api = FakeApi()
    replica = api.replica(settle_seconds=300)
    asyncio.run(replica.check())
    before = replica.served
    assert api.secret is not None
    del api.secret["data"]
    api.renumber(api.secret)
    asyncio.run(replica.check())
    assert replica.served != before
    assert (replica.served,) == api.generations()
    assert replica.trusted


def test_a_missing_secret_is_told_and_never_created() -> None:
    api = FakeApi()
    api.secret = None
    replica = api.replica()
    with pytest.raises(Trouble, match="Secret openfaas/s does not exist; create it, empty"):
        asyncio.run(replica.check())
    assert api.writes == []


def test_trouble_is_logged_once_and_what_is_served_stays() -> None:
    api = FakeApi()
    replica = api.replica()
    replica.check_every = timedelta(seconds=0.01)

    async def keep() -> None:
        keeping = asyncio.create_task(replica.keep())
        assert await asyncio.to_thread(until, lambda: replica.trusted, 20)
        served, asked = replica.served, len(api.asked)
        api.secret = None
        assert await asyncio.to_thread(until, lambda: len(api.asked) > asked + 20, 20)
        keeping.cancel()
        await asyncio.wait({keeping})
        assert replica.served == served

    with capture_logs() as lines:
        asyncio.run(keep())
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert len(warnings) == 1
    assert "does not exist" in warnings[0]["reason"]
    assert "PRIVATE" not in str(lines)


def test_without_a_certificate_each_handshake_fails() -> None:
    with pytest.raises(ssl.SSLError):
        shaken_hands(server_context(), made(NAMES, NOW).ca)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(version: ssl.TLSVersion) -> None:
    api = FakeApi()
    replica = api.replica()
    asyncio.run(replica.check())
    assert shaken_hands(replica.context, api.trusted(), version)


def test_nothing_older_than_tls_1_2_is_spoken() -> None:
    assert server_context().minimum_version is ssl.TLSVersion.TLSv1_2


def shaken_hands(
    server: ssl.SSLContext, ca: bytes, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> bytes:
    """The certificate in PEM that *server* shows to a client that trusts *ca* alone, in memory."""
    trusting = ssl.create_default_context(cadata=ca.decode("ascii"))
    trusting.minimum_version = trusting.maximum_version = version
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    other = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, other) * 5:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return ssl.DER_cert_to_PEM_cert(shown).encode("ascii")
