"""Renewing a session: what is asked of whom, what is on disk at each step, and when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from federation.client import ClientError
from federation.client.exchange import BrokerRefused
from federation.client.http import Sender
from federation.jose import jws
from federation.sign_on.live import SessionOver
from federation.sign_on.renewal import Renewal
from federation.sign_on.sessions import Session, Sessions, SignInSettings
from tests.harness.openid_provider import CLIENT_ID
from tests.harness.served_provider import CONFIDENTIAL, SECRET, ServedProvider, served_provider

GATEWAY = "https://gateway.example.com"


class FakeBroker:
    """Grants what it is told to grant, and keeps the ID tokens that it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []
        self.answers: list[httpx2.Response | Exception] = []
        """Its next answers; then it grants."""
        self.saw: Callable[[], None] = lambda: None
        """Called before it answers."""

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        form = parse_qs(request.content.decode())
        self.given.append(form["subject_token"][0])
        self.saw()
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        number = len(self.given)
        return httpx2.Response(200, json={"access_token": f"granted-{number}", "expires_in": 900})

    @property
    def sender(self) -> Sender:
        client = httpx2.Client(transport=httpx2.MockTransport(self))
        return Sender(client, pause=lambda _seconds: None)


def refusal(reason: str) -> httpx2.Response:
    body = {"error_description": "No.", "reason": reason, "request_id": "r-1"}
    return httpx2.Response(400, json=body)


@pytest.fixture(scope="module")
def running() -> Iterator[ServedProvider]:
    with served_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: ServedProvider) -> ServedProvider:
    running.renew()
    return running


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "federation")


@pytest.fixture
def session(provider: ServedProvider, sessions: Sessions) -> Session:
    """A session with an access token that has expired."""
    given = provider.give()
    session = Session(
        gateway=GATEWAY,
        settings=SignInSettings(provider.iss, CLIENT_ID),
        issuer=provider.iss,
        sub="alice",
        person="alice",
        grant="code",
        signed_in=time.time(),
        access_token="old",
        access_expires=time.time() - 1,
        access_seconds=900.0,
        id_token=given["id_token"],
        refresh_tokens=(given["refresh_token"],),
    )
    sessions.save(session)
    return session


@pytest.fixture
def renew(sessions: Sessions, broker: FakeBroker) -> Callable[[], Session]:
    """Renew what is on disk, as the program of `live_session` does."""

    def run() -> Session:
        session = sessions.of(GATEWAY)
        assert session is not None
        with broker.sender as sender:
            return Renewal(sessions, session, time.time, sender).run()

    return run


def changed(sessions: Sessions, session: Session, **changes: Any) -> None:
    sessions.save(replace(session, **changes))


def on_disk(sessions: Sessions) -> Session:
    session = sessions.of(GATEWAY)
    assert session is not None
    return session


Renew = Callable[[], Session]


def test_a_refresh_and_an_exchange_give_a_new_access_token(
    session: Session, sessions: Sessions, provider: ServedProvider, broker: FakeBroker, renew: Renew
) -> None:
    renewed = renew()
    assert renewed == on_disk(sessions)
    assert renewed.access_token == "granted-1"
    assert renewed.access_expires == pytest.approx(time.time() + 900, abs=30)
    assert renewed.id_token == broker.given[0] != session.id_token
    assert renewed.received == ""
    assert renewed.refresh_tokens[1] == session.refresh_tokens[0]
    assert renewed.refresh_tokens[0] in provider.sessions


def test_a_session_is_renewed_again_and_again(
    session: Session, provider: ServedProvider, renew: Renew
) -> None:
    for _ in range(3):
        renew()
    assert provider.count("refresh_token") == 3


def test_new_tokens_are_on_disk_before_they_are_verified(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew
) -> None:
    provider.metadata_changes = {"jwks_uri": "http://127.0.0.1:9/jwks"}
    with pytest.raises(ClientError):
        renew()
    kept = on_disk(sessions)
    assert kept.received != ""
    assert kept.refresh_tokens[0] in provider.sessions
    provider.metadata_changes = {}
    assert renew().access_token == "granted-1"
    assert provider.count("refresh_token") == 1


def test_new_tokens_are_on_disk_before_they_are_exchanged(
    session: Session, sessions: Sessions, provider: ServedProvider, broker: FakeBroker, renew: Renew
) -> None:
    seen = []
    broker.saw = lambda: seen.append(on_disk(sessions))
    renew()
    assert seen[0].received == broker.given[0]
    assert seen[0].refresh_tokens[0] in provider.sessions


def test_a_broker_that_cannot_be_reached_costs_no_second_refresh(
    session: Session, sessions: Sessions, provider: ServedProvider, broker: FakeBroker, renew: Renew
) -> None:
    broker.answers = [httpx2.ConnectError("down")] * 4
    with pytest.raises(ClientError):
        renew()
    assert renew().access_token == "granted-5"
    assert provider.count("refresh_token") == 1
    assert on_disk(sessions).received == ""


def test_an_id_token_that_waited_too_long_is_refreshed(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew
) -> None:
    provider.id_token_seconds = -60
    stale = provider.give()["id_token"]
    provider.id_token_seconds = 300
    changed(sessions, session, received=stale)
    assert renew().access_token == "granted-1"
    assert provider.count("refresh_token") == 1


def test_an_id_token_that_was_exchanged_before_a_kill_is_refreshed(
    session: Session, sessions: Sessions, provider: ServedProvider, broker: FakeBroker, renew: Renew
) -> None:
    changed(sessions, session, received=session.id_token)
    broker.answers = [refusal("already_used")]
    assert renew().access_token == "granted-2"
    assert provider.count("refresh_token") == 1


def test_a_broker_that_refuses_every_token_is_not_asked_for_ever(
    session: Session, sessions: Sessions, broker: FakeBroker, renew: Renew
) -> None:
    changed(sessions, session, received=session.id_token)
    broker.answers = [refusal("already_used")] * 10
    with pytest.raises(BrokerRefused):
        renew()
    assert len(broker.given) == 2


def test_after_a_crash_the_refresh_token_is_sent_again(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew
) -> None:
    """The answer to the first refresh was lost. This provider takes the token twice."""
    provider.reuse_allowed = True
    provider.lose_refresh(session.refresh_tokens[0])
    assert renew().access_token == "granted-1"


def test_if_the_newest_refresh_token_is_refused_the_one_before_is_tried(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew
) -> None:
    changed(sessions, session, refresh_tokens=("never-came-into-force", *session.refresh_tokens))
    assert renew().access_token == "granted-1"


@pytest.mark.parametrize(
    "error", ["invalid_grant", "login_required", "interaction_required", "consent_required"]
)
def test_a_session_that_the_provider_has_ended_is_over(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew, error: str
) -> None:
    provider.refuses_with = error
    with pytest.raises(SessionOver, match=f"federation login --gateway {GATEWAY}"):
        renew()
    assert on_disk(sessions).refresh_tokens == ()


def test_a_session_that_is_over_is_not_asked_about_again(
    session: Session, provider: ServedProvider, renew: Renew
) -> None:
    provider.end_sessions()
    for _ in range(3):
        with pytest.raises(SessionOver):
            renew()
    assert provider.count("refresh_token") == 1


def test_an_id_token_does_not_prolong_a_session_that_the_provider_has_ended(
    session: Session, sessions: Sessions, provider: ServedProvider, broker: FakeBroker, renew: Renew
) -> None:
    """It would still verify. But the person may have been dismissed a minute ago."""
    provider.end_sessions()
    with pytest.raises(SessionOver):
        renew()
    assert broker.given == []


@pytest.mark.parametrize("error", ["invalid_client", "temporarily_unavailable", "slow_down"])
def test_another_error_ends_no_session(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew, error: str
) -> None:
    provider.refuses_with = error
    with pytest.raises(ClientError):
        renew()
    provider.refuses_with = ""
    assert renew().access_token == "granted-1"


def test_a_provider_that_is_down_ends_no_session(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew
) -> None:
    provider.down = True
    with pytest.raises(ClientError):
        renew()
    assert on_disk(sessions) == session
    provider.down = False
    assert renew().access_token == "granted-1"


def test_a_refresh_that_gives_another_person_is_refused(
    session: Session, sessions: Sessions, provider: ServedProvider, broker: FakeBroker, renew: Renew
) -> None:
    provider.refresh_claims = {"sub": "mallory-1"}
    for _ in range(2):  # neither at once, nor from what was written down
        with pytest.raises(ClientError, match="wrong_subject"):
            renew()
    assert broker.given == []
    assert on_disk(sessions).access_token == "old"


def test_a_refresh_token_that_does_not_change_is_kept(
    session: Session, provider: ServedProvider, renew: Renew
) -> None:
    provider.rotates = False
    for _ in range(2):
        assert renew().refresh_tokens == session.refresh_tokens


def test_a_refresh_without_an_id_token_uses_the_last_one(
    session: Session, provider: ServedProvider, broker: FakeBroker, renew: Renew
) -> None:
    provider.refresh_gives_id_token = False
    renewed = renew()
    assert broker.given == [session.id_token]
    assert renewed.refresh_tokens[0] in provider.sessions


def test_a_refresh_without_an_id_token_is_the_end_once_the_last_one_has_expired(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew
) -> None:
    provider.refresh_gives_id_token = False
    provider.id_token_seconds = -60
    changed(sessions, session, id_token=provider.give()["id_token"])
    with pytest.raises(SessionOver, match="no new ID token"):
        renew()


def test_without_a_refresh_token_the_id_token_is_exchanged_until_it_expires(
    session: Session, sessions: Sessions, provider: ServedProvider, broker: FakeBroker, renew: Renew
) -> None:
    changed(sessions, session, refresh_tokens=())
    assert renew().access_token == "granted-1"
    assert broker.given == [session.id_token]
    provider.id_token_seconds = -60
    changed(sessions, on_disk(sessions), id_token=provider.give()["id_token"])
    with pytest.raises(SessionOver, match="expired"):
        renew()


def test_keys_that_cannot_be_fetched_end_no_session(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew
) -> None:
    changed(sessions, session, refresh_tokens=())
    provider.metadata_changes = {"jwks_uri": "http://127.0.0.1:9/jwks"}
    with pytest.raises(ClientError, match="keys"):
        renew()
    provider.metadata_changes = {}
    assert renew().access_token == "granted-1"


def test_a_client_signs_in_again_by_its_secret(
    session: Session, sessions: Sessions, provider: ServedProvider, renew: Renew, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET + "\n")
    settings = SignInSettings(provider.iss, CONFIDENTIAL, client_secret_file=str(secret))
    changed(
        sessions,
        session,
        settings=settings,
        grant="client-credentials",
        refresh_tokens=(),
        id_token="",
    )
    renewed = renew()
    assert renewed.access_token == "granted-1"
    assert renewed.id_token == ""
    assert SECRET not in next((sessions.home / "sessions").glob("*.json")).read_text()
    secret.chmod(0o644)
    with pytest.raises(ClientError, match="chmod 600"):
        renew()


def test_roles_that_were_asked_for_are_asked_for_again(
    session: Session, sessions: Sessions, renew: Renew, broker: FakeBroker
) -> None:
    asked: list[list[str]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(parse_qs(request.content.decode())["role"])
        return broker(request)

    changed(sessions, session, settings=replace(session.settings, roles=("a", "b")))
    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    with Sender(client) as sender:
        Renewal(sessions, on_disk(sessions), time.time, sender).run()
    assert asked == [["a", "b"]]


def test_the_id_token_of_a_renewal_is_for_the_client(
    session: Session, broker: FakeBroker, renew: Renew
) -> None:
    renew()
    assert jws.parse(broker.given[0]).claims["aud"] == CLIENT_ID
