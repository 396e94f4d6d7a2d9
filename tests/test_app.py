"""`build` and the lifespan: the application, its background tasks and their failures."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.app import build
from federation.config import Settings
from federation.errors import DocumentsRefused, SettingsRefused
from federation.state.memory import MemoryStore
from federation.tokens.signing_keys import KeyFolder
from tests.harness.broker import DOCUMENTS, URL, logged
from tests.harness.builders import GITHUB


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
    with pytest.raises(SettingsRefused, match="this broker itself"):
        build(settings.model_copy(update={"issuer_url": GITHUB}))


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
