"""`build` and the lifespan: the application, its background tasks and their failures."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.app import build
from federation.config import Settings
from federation.errors import DocumentsRefused, SettingsRefused
from federation.sources.files import Adopted
from federation.state.memory import MemoryStore
from federation.tokens.signing_keys import KeyFolder, read_pem
from tests.harness.broker import DOCUMENTS, URL, logged
from tests.harness.builders import GENERIC, GITHUB
from tests.harness.certificates import Authority


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    place = tmp_path / "documents.yaml"
    # Nothing is fetched while these tests run: no issuer is where one could be reached.
    place.write_text(DOCUMENTS.replace('aud: ["', 'jwksUri: "https://127.0.0.1:9/", aud: ["'))
    return Settings(issuer_url=URL, documents=(place,), state=tmp_path / "state")


def test_a_rotation_between_build_and_start_is_noticed(settings: Settings) -> None:
    app = build(settings)
    key, _ = KeyFolder.under(settings.state).rotate(datetime.now(UTC))

    async def story() -> str:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.3)
            return str(app.state.broker.signing.signs.kid)

    assert asyncio.run(story()) == key.kid


def test_unchanged_keys_are_not_logged(settings: Settings) -> None:
    app = build(settings)

    async def story() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.3)

    with logged() as log:
        asyncio.run(story())
    assert "signing keys changed" not in log.getvalue()


def test_warnings_of_the_first_documents_are_logged_once(settings: Settings) -> None:
    with logged() as log:
        app = build(settings)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    told = Counter(line["problem"] for line in lines if line.get("code", "").startswith("W"))
    assert set(told) == {str(warning) for warning in app.state.broker.source.current().warnings}
    assert told
    assert set(told.values()) == {1}


def test_build_raises_for_documents_with_errors(settings: Settings) -> None:
    settings.documents[0].write_text("kind: Role\n")
    with pytest.raises(DocumentsRefused):
        build(settings)


def test_a_broker_refuses_itself_as_an_issuer(settings: Settings) -> None:
    with pytest.raises(DocumentsRefused) as refused:
        build(settings.model_copy(update={"issuer_url": GITHUB}))
    (problem,) = refused.value.problems
    assert (problem.code, problem.name, problem.line) == ("D026", "github", 5)


def test_it_does_not_adopt_itself_as_an_issuer_later(settings: Settings) -> None:
    place = settings.documents[0]
    app = build(settings)
    source = app.state.broker.source

    async def story() -> None:
        async with app.router.lifespan_context(app):
            before = source.current()
            place.write_text(place.read_text("utf-8").replace(GENERIC, URL))
            async with asyncio.timeout(5):
                while not source.problems():  # noqa: ASYNC110  there is no event to wait for
                    await asyncio.sleep(0.02)
            assert source.current() is before

    with logged():
        asyncio.run(story())
    assert {problem.code for problem in source.problems()} == {"D026"}


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_left_behind(
    settings: Settings, tmp_path: Path
) -> None:
    settings.documents[0].write_text("kind: Role\n")
    changes = {
        "signing_key": (private(tmp_path / "key.pem", b"none"),),
        "upstream": "http://127.0.0.1:9",
        "upstream_secrets": tmp_path,
        "audit_webhook": "https://127.0.0.1:9/",
        "audit_webhook_ca": private(tmp_path / "ca.pem", b"none"),
    }
    with pytest.raises(SettingsRefused) as refused:
        build(settings.model_copy(update=changes))
    told = [problem.partition(":")[0] for problem in refused.value.problems]
    assert told == ["signing-key", "upstream-secrets", "audit-webhook-ca"]
    assert [problem.code for problem in refused.value.documents] == ["D004"]
    assert not settings.state.exists()


def test_a_broker_can_begin_with_the_documents_that_another_process_adopted(
    settings: Settings,
) -> None:
    adopted: list[Adopted] = []
    first = build(settings, on_adopt=adopted.append).state.broker.source.current()
    settings.documents[0].write_text("kind: Role\n")
    with logged() as log:
        app = build(settings, last_good=adopted[-1].text)
    assert app.state.broker.source.current().digest == first.digest
    told = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert told[-2:] == [
        "document problem",
        "documents not adopted; the last good set stays in use",
    ]


class TestReload:
    def test_given_signing_keys_are_read_again(self, settings: Settings, tmp_path: Path) -> None:
        key = private(tmp_path / "key.pem", pem())
        app = build(settings.model_copy(update={"signing_key": (key,)}))
        key.write_bytes(second := pem())
        with logged() as log:
            app.state.reload()
        assert app.state.broker.signing.signs.kid == read_pem(second).kid
        assert "signing keys changed" in log.getvalue()

    def test_a_key_that_cannot_be_read_leaves_the_known_one_and_is_told(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        key = private(tmp_path / "key.pem", good := pem())
        app = build(settings.model_copy(update={"signing_key": (key,)}))
        key.write_bytes(b"secret words")
        with logged() as log:
            app.state.reload()
        assert app.state.broker.signing.signs.kid == read_pem(good).kid
        assert "not reloaded; the known one stays in use" in log.getvalue()
        assert str(key) in app.state.health.signing_problem
        assert "secret words" not in log.getvalue()
        key.write_bytes(good)
        with logged() as log:
            app.state.reload()
        assert app.state.health.signing_problem is None
        assert "signing keys changed" not in log.getvalue()

    def test_documents_are_read_again_although_they_did_not_change(
        self, settings: Settings
    ) -> None:
        app = build(settings)
        source = app.state.broker.source

        async def story() -> None:
            async with app.router.lifespan_context(app):
                before = source.current()
                app.state.reload()
                async with asyncio.timeout(5):
                    while source.current() is before:  # noqa: ASYNC110  there is no event to wait for
                        await asyncio.sleep(0.02)

        with logged():
            asyncio.run(story())


def pem(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> bytes:
    return ec.generate_private_key(curve()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def private(path: Path, content: bytes) -> Path:
    """The file at *path*, which only its owner may read."""
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def problems(settings: Settings, **changes: object) -> tuple[str, ...]:
    """The problems for which `build` refuses *settings* with *changes*."""
    with pytest.raises(SettingsRefused) as caught:
        build(settings.model_copy(update=changes))
    return caught.value.problems


def test_every_signing_key_that_cannot_be_used_stops_the_start(
    settings: Settings, tmp_path: Path
) -> None:
    good = private(tmp_path / "good.pem", pem())
    other_curve = private(tmp_path / "p384.pem", pem(ec.SECP384R1))
    no_key = private(tmp_path / "text.pem", b"secret words")
    gone = tmp_path / "gone.pem"
    told = problems(settings, signing_key=(good, other_curve, no_key, gone))
    assert [each.partition(".pem")[0] for each in told] == [
        f"signing-key: {tmp_path / name}" for name in ("p384", "text", "gone")
    ]
    assert "P-256" in told[0]
    assert "secret words" not in "".join(told)


def test_the_first_signing_key_signs_and_one_that_is_named_twice_counts_once(
    settings: Settings, tmp_path: Path
) -> None:
    one, two = (private(tmp_path / f"{name}.pem", pem()) for name in "ab")
    app = build(settings.model_copy(update={"signing_key": (one, two, one)}))
    signing = app.state.broker.signing
    assert signing.signs.kid == read_pem(one.read_bytes()).kid
    assert [key.kid for key in signing.keys] == [
        read_pem(path.read_bytes()).kid for path in (one, two)
    ]


def test_a_state_folder_in_which_no_key_can_be_made_stops_the_start(
    settings: Settings, tmp_path: Path
) -> None:
    file = private(tmp_path / "file", b"")
    (problem,) = problems(settings, state=file)
    assert problem.startswith("state: ")


@pytest.mark.parametrize("missing", ["basic-auth-user", "basic-auth-password"])
def test_upstream_secrets_without_user_or_password_stop_the_start(
    settings: Settings, tmp_path: Path, missing: str
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    for name in {"basic-auth-user", "basic-auth-password"} - {missing}:
        private(folder / name, b"hunter2")
    upstream = {"upstream": "http://127.0.0.1:9", "upstream_secrets": folder}
    (problem,) = problems(settings, **upstream)
    assert problem.startswith("upstream-secrets: ")
    assert missing in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize("empty", ["basic-auth-user", "basic-auth-password"])
def test_an_empty_user_or_password_of_the_upstream_stops_the_start(
    settings: Settings, tmp_path: Path, empty: str
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    for name in ("basic-auth-user", "basic-auth-password"):
        private(folder / name, b"\n" if name == empty else b"hunter2\n")
    upstream = {"upstream": "http://127.0.0.1:9", "upstream_secrets": folder}
    (problem,) = problems(settings, **upstream)
    assert f"{empty} is empty" in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize("broken", ["upstream_ca", "upstream_certificate", "upstream_key"])
def test_a_certificate_for_the_upstream_that_cannot_be_used_stops_the_start(
    settings: Settings, tmp_path: Path, broken: str
) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.client(tmp_path / "client")
    files = {
        "upstream_ca": authority.certificate,
        "upstream_certificate": certificate,
        "upstream_key": key,
        broken: private(tmp_path / "broken.pem", b"secret words"),
    }
    (problem,) = problems(settings, upstream="https://127.0.0.1:9", **files)
    assert problem.startswith("upstream-ca, upstream-certificate or upstream-key: ")
    assert str(files[broken]) in problem
    assert "secret words" not in problem


def test_an_encrypted_key_for_the_upstream_stops_the_start_and_asks_nobody(
    settings: Settings, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, _ = authority.client(tmp_path / "client")
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hunter2"),
    )
    files = {
        "upstream_certificate": certificate,
        "upstream_key": private(tmp_path / "encrypted.key", encrypted),
    }
    (problem,) = problems(settings, upstream="https://127.0.0.1:9", **files)
    assert "the key is encrypted" in problem


def test_a_webhook_ca_without_a_certificate_stops_the_start(
    settings: Settings, tmp_path: Path
) -> None:
    ca = private(tmp_path / "ca.pem", pem())
    webhook = {"audit_webhook": "https://127.0.0.1:9/", "audit_webhook_ca": ca}
    (problem,) = problems(settings, **webhook)
    assert problem.startswith(f"audit-webhook-ca: {ca} holds a private key, and no certificate")


def test_a_webhook_header_that_is_none_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    header = private(tmp_path / "header", b"hunter2\n")
    webhook = {"audit_webhook": "https://127.0.0.1:9/", "audit_webhook_header": header}
    (problem,) = problems(settings, **webhook)
    assert problem.startswith(f"audit-webhook-header: {header} must hold one line such as ")
    assert "hunter2" not in problem


def test_a_webhook_ca_is_used_and_the_broker_starts_and_ends(
    settings: Settings, tmp_path: Path
) -> None:
    ca = Authority(tmp_path / "authority").certificate
    webhook = {"audit_webhook": "https://127.0.0.1:9/", "audit_webhook_ca": ca}
    app = build(settings.model_copy(update=webhook))

    async def story() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0)

    with logged():
        asyncio.run(story())


def test_documents_with_errors_are_not_adopted_and_the_last_good_set_serves_on(
    settings: Settings,
) -> None:
    place = settings.documents[0]
    good = place.read_text("utf-8")
    app = build(settings)
    source = app.state.broker.source

    async def until(reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not reached():  # noqa: ASYNC110  there is no event to wait for
                await asyncio.sleep(0.02)

    async def story() -> None:
        async with app.router.lifespan_context(app):
            before = source.current()
            place.write_text(good + "---\nkind: Role\n")
            await until(lambda: bool(source.problems()))
            assert source.current() is before
            place.write_text(good.replace("octo-deployer", "octo-renamed"))
            await until(lambda: source.current() is not before)
            assert not source.problems()

    with logged() as log:
        asyncio.run(story())
    told = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    refused = told.index("documents not adopted; the last good set stays in use")
    assert "document problem" in told[:refused]
    assert "documents adopted" in told[refused:]


class Failing(MemoryStore):
    """A store whose background task fails."""

    async def run(self) -> None:
        """Raise."""
        raise RuntimeError("gone for good")


def test_a_failed_background_task_is_logged(settings: Settings) -> None:
    async def story() -> None:
        app = build(settings, state=Failing(time.time))
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.2)

    with logged() as log:
        asyncio.run(story())
    told = [json.loads(line) for line in log.getvalue().splitlines()]
    failures = [line for line in told if line["event"].startswith("a background task failed")]
    assert len(failures) == 1
    assert "gone for good" in failures[0]["exception"]


def test_refusals_name_the_page_where_the_docs_are_published(settings: Settings) -> None:
    docs = "https://docs.example.com/federation"

    async def refused(app: object) -> dict[str, object]:
        transport = httpx2.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
            told: dict[str, object] = (await client.post("/oauth/token")).json()
            return told

    published = asyncio.run(refused(build(settings.model_copy(update={"docs_url": docs}))))
    assert published["error_uri"] == f"{docs}/refusals.md#invalid_request"
    assert "error_uri" not in asyncio.run(refused(build(settings)))
