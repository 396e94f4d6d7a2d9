"""A real broker, used by verifiers and clients that know only its URL."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from joserfc import jwt as jose
from joserfc.jwk import KeySet

from tests.harness.broker import AUDIENCE, Served, local_issuer, served, started

pytestmark = pytest.mark.e2e

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One broker for the tests that change nothing."""
    with served(tmp_path_factory.mktemp("broker")) as up:
        yield up


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Served]:
    """A broker for one test, to be changed or stopped."""
    with served(tmp_path) as up:
        yield up


def discovered(url: str) -> dict[str, Any]:
    """The metadata that a verifier finds with the issuer's URL alone."""
    said: dict[str, Any] = httpx2.get(f"{url}/.well-known/openid-configuration").json()
    assert said["issuer"] == url
    return said


def oauth_client() -> Any:
    """An independent OAuth client without a secret."""
    with warnings.catch_warnings():
        # It warns of its next version. The import is here, so that only this suite needs it.
        warnings.simplefilter("ignore")
        from authlib.integrations.httpx_client import (
            OAuth2Client,
        )

    return OAuth2Client(token_endpoint_auth_method="none")


def until(happens: Callable[[], bool], seconds: float) -> float:
    """Wait until *happens*, and return after how many seconds."""
    began = time.monotonic()
    while not happens():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


class TestVerifiers:
    def test_pyjwt_accepts_a_token_through_discovery_alone(self, broker: Served) -> None:
        token = broker.access_token()
        key = jwt.PyJWKClient(discovered(broker.url)["jwks_uri"]).get_signing_key_from_jwt(token)
        claims = jwt.decode(
            token,
            key,
            algorithms=["ES256"],
            audience=broker.url,
            issuer=broker.url,
            options={"require": ["exp", "iat", "nbf", "iss", "sub", "aud", "jti"]},
        )
        assert claims["sub"] == "fed:repo:octo-org/octo-repo:ref:refs/heads/main"
        assert claims["policy"] == ["deploy"]

    def test_joserfc_accepts_a_token_through_discovery_alone(self, broker: Served) -> None:
        token = broker.access_token()
        keys = KeySet.import_key_set(httpx2.get(discovered(broker.url)["jwks_uri"]).json())
        decoded = jose.decode(token, keys, algorithms=["ES256"])
        assert decoded.header["typ"] == "at+jwt"
        jose.JWTClaimsRegistry(
            iss={"essential": True, "value": broker.url},
            aud={"essential": True, "value": broker.url},
            exp={"essential": True},
        ).validate(decoded.claims)

    def test_they_refuse_a_changed_token(self, broker: Served) -> None:
        header, payload, signature = broker.access_token().split(".")
        other = broker.access_token().split(".")[1]
        key = jwt.PyJWKClient(discovered(broker.url)["jwks_uri"]).get_signing_key_from_jwt(
            f"{header}.{payload}.{signature}"
        )
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(f"{header}.{other}.{signature}", key, algorithms=["ES256"])

    def test_the_metadata_is_valid_by_an_independent_reading_of_rfc_8414(
        self, broker: Served
    ) -> None:
        from authlib.oauth2.rfc8414 import (
            AuthorizationServerMetadata,
        )

        said = httpx2.get(f"{broker.url}/.well-known/oauth-authorization-server").json()
        metadata = AuthorizationServerMetadata(said)
        for member in (
            "token_endpoint",
            "token_endpoint_auth_methods_supported",
            "grant_types_supported",
            "scopes_supported",
            "response_types_supported",
            "revocation_endpoint_auth_methods_supported",
        ):
            getattr(metadata, f"validate_{member}")()

    def test_an_oauth_client_performs_the_exchange(self, broker: Served) -> None:
        with oauth_client() as client:
            token = client.fetch_token(
                discovered(broker.url)["token_endpoint"],
                grant_type=GRANT,
                subject_token=broker.job(),
                subject_token_type=ID_TOKEN,
            )
        assert token["token_type"] == "Bearer"
        assert token["access_token"].count(".") == 2
        assert token["expires_in"] == 900

    def test_an_oauth_client_understands_a_refusal(self, broker: Served) -> None:
        with (
            oauth_client() as client,
            pytest.raises(Exception, match="No policies found for subject") as caught,
        ):
            client.fetch_token(
                f"{broker.url}/oauth/token",
                grant_type=GRANT,
                subject_token=broker.job("stranger"),
                subject_token_type=ID_TOKEN,
            )
        assert getattr(caught.value, "error", None) == "invalid_request"

    def test_an_oauth_client_revokes(self, broker: Served) -> None:
        token = broker.access_token()
        with oauth_client() as client:
            answer = client.revoke_token(f"{broker.url}/oauth/revoke", token=token)
        assert answer.status_code == 200
        form = {
            "grant_type": GRANT,
            "subject_token": token,
            "subject_token_type": ID_TOKEN,
            "scope": "function",
        }
        refused = httpx2.post(f"{broker.url}/oauth/token", data=form)
        assert refused.json()["reason"] == "revoked"


class TestClient:
    """`federation exchange` in the environment that a runner gives a job."""

    @staticmethod
    def run(broker: Served, job: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  our own program
            [sys.executable, "-m", "federation", "exchange", "--url", broker.url,
             "--audience", AUDIENCE, *more],
            env={**broker.issuer.environment("github", job), "PATH": "/usr/bin"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def test_a_job_gets_its_token_on_standard_output(self, broker: Served) -> None:
        done = self.run(broker, "main")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip().count(".") == 2

    def test_a_refused_job_prints_the_reason_on_standard_error_alone(self, broker: Served) -> None:
        done = self.run(broker, "feature")
        assert (done.returncode, done.stdout) == (1, "")
        assert "no_role_admits" in done.stderr
        assert "jwt:ref (the token has refs/heads/feature/login)" in done.stderr
        assert broker.issuer.request_token not in done.stderr


class TestServer:
    def test_sigterm_ends_it_with_0(self, own_broker: Served) -> None:
        own_broker.access_token()
        assert own_broker.stop() == 0

    def test_sigint_ends_it_with_0(self, own_broker: Served) -> None:
        own_broker.process.send_signal(signal.SIGINT)
        assert own_broker.process.wait(timeout=30) == 0

    def test_an_open_connection_does_not_delay_the_stop(self, own_broker: Served) -> None:
        with own_broker.connect() as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
            began = time.monotonic()
            assert own_broker.stop() == 0
            assert time.monotonic() - began < 10

    def test_every_line_it_logs_is_json_and_none_holds_a_token(self, own_broker: Served) -> None:
        token = own_broker.job()
        own = own_broker.exchange(token).json()["access_token"]
        own_broker.exchange(token)
        own_broker.exchange(own_broker.job("stranger"))
        own_broker.stop()
        time.sleep(0.2)
        lines = [own_broker.lines.get_nowait() for _ in range(own_broker.lines.qsize())]
        assert len(lines) >= 3
        for line in lines:
            assert json.loads(line)["level"]
            for secret in (token, own):
                assert secret.split(".")[2] not in line

    def test_a_spent_token_stays_spent_after_the_process_is_killed(self, tmp_path: Path) -> None:
        with local_issuer() as issuer:
            with started(tmp_path, issuer) as first:
                token = first.job()
                assert first.exchange(token).status_code == 200
                first.process.kill()
                first.process.wait()
            with started(tmp_path, issuer) as second:
                assert second.exchange(token).json()["reason"] == "already_used"


class TestLiveChanges:
    @pytest.mark.alone
    def test_a_document_changed_on_disk_is_live_within_two_seconds(
        self, own_broker: Served
    ) -> None:
        place = own_broker.documents / "all.yaml"
        good = place.read_text()
        assert own_broker.exchange().status_code == 200
        place.write_text(good.replace("refs/heads/main", "refs/heads/release"))
        took = until(lambda: own_broker.exchange().status_code == 400, 5)
        assert took < 2

    @pytest.mark.alone
    def test_a_broken_set_is_not_adopted_and_readiness_is_degraded(
        self, own_broker: Served
    ) -> None:
        place = own_broker.documents / "all.yaml"
        place.write_text(place.read_text().replace("repository_id", "repositoryid:["))
        (own_broker.documents / "bad.yaml").write_text("kind: [")

        def degraded() -> bool:
            return bool(httpx2.get(f"{own_broker.url}/readyz").json()["status"] == "degraded")

        assert until(degraded, 5) < 2
        assert own_broker.exchange().status_code == 200

    @pytest.mark.alone
    def test_after_a_key_rotation_old_and_new_tokens_verify(self, own_broker: Served) -> None:
        before = own_broker.access_token()
        rotated = subprocess.run(  # noqa: S603  our own program
            [sys.executable, "-m", "federation", "keys", "rotate", "--state", str(own_broker.state)],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        kid = rotated.stdout.split()[0]

        def signs() -> bool:
            return bool(jwt.get_unverified_header(own_broker.access_token())["kid"] == kid)

        assert until(signs, 8) < 5
        after = own_broker.access_token()
        keys = jwt.PyJWKClient(discovered(own_broker.url)["jwks_uri"])
        for token in (before, after):
            key = keys.get_signing_key_from_jwt(token)
            assert jwt.decode(token, key, algorithms=["ES256"], audience=own_broker.url)
