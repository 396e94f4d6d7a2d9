"""
Sign-ins under stress: many callers at once, and `kill -9` at each step of a renewal.

The provider takes each refresh token once, and ends the session if one comes again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tests.harness.broker import Served
from tests.harness.gateway import PASSWORD, USER, sample, write_secrets
from tests.harness.person import Person, ended, finished
from tests.harness.process import ROOT, free_port, until
from tests.harness.served_provider import ServedProvider, people, served_provider

pytestmark = pytest.mark.e2e

CALLERS = 20


@pytest.fixture(scope="module")
def running() -> Iterator[ServedProvider]:
    with served_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: ServedProvider) -> ServedProvider:
    running.renew()
    return running


@pytest.fixture(scope="module")
def broker(running: ServedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A broker in front of a gateway."""
    folder = tmp_path_factory.mktemp("broker")
    secrets = write_secrets(folder / "secrets", USER, PASSWORD)
    with sample() as upstream:
        behind = (f"--upstream={upstream}", f"--upstream-secrets={secrets}")
        documents = people(running.iss)
        served = Served(folder, documents, *behind, "--failed-exchanges=0", port=free_port())
        with served.running():
            yield served


@pytest.fixture
def alice(tmp_path: Path, broker: Served, provider: ServedProvider) -> Person:
    """Alice, who has signed in, and whose access token has expired."""
    person = Person(tmp_path, broker.url, provider.iss)
    person.done("login", *person.settings())
    person.sessions.save(replace(person.session, access_expires=time.time() - 1))
    return person


def works(broker: Served, token: str) -> bool:
    """Whether the gateway takes *token*."""
    headers = {"Authorization": f"Bearer {token}"}
    address = f"{broker.url}/system/functions?namespace=dev"
    return httpx2.get(address, headers=headers, timeout=20).status_code == 200


def renewing(command: subprocess.Popen[str]) -> int:
    """The id of the process that renews for *command*."""
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children")
    assert until(lambda: bool(children.read_text().split()), 30)
    return int(children.read_text().split()[0])


def killed(*pids: int) -> None:
    """Kill processes, and wait until they are gone."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert until(lambda: not any(_runs(pid) for pid in pids), 30)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_many_callers_at_once_make_one_refresh(
    alice: Person, provider: ServedProvider, broker: Served
) -> None:
    ends = [finished(each) for each in [alice.start("token") for _ in range(CALLERS)]]
    assert {each.returncode for each in ends} == {0}
    (token,) = {each.stdout.strip() for each in ends}
    assert works(broker, token)
    assert provider.count("refresh_token") == 1


def test_many_callers_at_once_learn_that_the_session_is_over(
    alice: Person, provider: ServedProvider
) -> None:
    provider.end_sessions()
    ends = [finished(each) for each in [alice.start("token") for _ in range(CALLERS)]]
    assert {each.returncode for each in ends} == {1}
    assert all("federation login" in each.stderr for each in ends)
    assert provider.count("refresh_token") == 1


def test_many_gateways_are_renewed_at_once_and_faas_cli_has_every_token(
    alice: Person, provider: ServedProvider, broker: Served
) -> None:
    """They share one configuration of faas-cli, which none of them may write over."""
    other = broker.url.replace("127.0.0.1", "localhost")
    own = (provider.give()["refresh_token"],)
    alice.sessions.save(replace(alice.session, gateway=other, refresh_tokens=own))
    for round_ in range(3):
        for gateway in (broker.url, other):
            session = alice.sessions.of(gateway)
            assert session is not None
            if round_:
                alice.sessions.save(replace(session, access_expires=time.time() - 1))
        starts = [alice.start("token", "--gateway", gateway) for gateway in (broker.url, other)]
        tokens = [finished(each).stdout.strip() for each in starts]
        assert tokens == [alice.saved_token(), alice.saved_token(other)]
        assert all(tokens)


# Kill -9


@pytest.mark.parametrize("point", ["token", "granted", "keys"])
def test_a_command_that_is_killed_loses_no_session(
    alice: Person, provider: ServedProvider, broker: Served, point: str
) -> None:
    """Its renewal goes on without it, and the next caller finds what it gained."""
    with provider.hold(point) as reached, ended(alice.start("token")) as token:
        assert reached.wait(60)
        killed(token.pid)
    assert works(broker, alice.done("token"))
    assert provider.count("refresh_token") == 1


def test_a_whole_terminal_that_is_killed_loses_no_session(
    alice: Person, provider: ServedProvider, broker: Served
) -> None:
    command = [sys.executable, "-m", "federation", "token"]
    with provider.hold("granted") as reached:
        shell = alice.start_program(["setsid", *command])
        with ended(shell):
            assert reached.wait(60)
            os.killpg(os.getpgid(shell.pid), signal.SIGKILL)
    assert works(broker, alice.done("token"))
    assert provider.count("refresh_token") == 1


def test_ctrl_c_loses_no_session(alice: Person, provider: ServedProvider, broker: Served) -> None:
    with provider.hold("granted") as reached, ended(alice.start("token")) as token:
        assert reached.wait(60)
        token.send_signal(signal.SIGINT)
        time.sleep(0.5)
    assert works(broker, alice.done("token"))
    assert provider.count("refresh_token") == 1


def test_a_crash_before_the_provider_has_seen_the_token_loses_no_session(
    alice: Person, provider: ServedProvider, broker: Served
) -> None:
    provider.endpoints["token"] = _never
    with ended(alice.start("token")) as token:
        assert until(lambda: provider.count("refresh_token") == 1, 60)
        killed(renewing(token), token.pid)
    del provider.endpoints["token"]
    assert works(broker, alice.done("token"))


async def _never(_request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(503)


@pytest.mark.parametrize("reuse_allowed", [True, False], ids=["a-provider-that-waits", "strict"])
def test_a_crash_while_the_answer_is_on_its_way_is_mended_where_the_provider_lets_it(
    alice: Person, provider: ServedProvider, broker: Served, reuse_allowed: bool
) -> None:
    """The refresh token is used up, and nobody has the new one. No client can know it."""
    provider.reuse_allowed = reuse_allowed
    with provider.hold("granted") as reached, ended(alice.start("token")) as token:
        assert reached.wait(60)
        killed(renewing(token), token.pid)
    if reuse_allowed:
        assert works(broker, alice.done("token"))
    else:
        assert f"federation login --gateway {broker.url}" in alice.refused("token")


def test_a_crash_before_the_new_tokens_were_verified_costs_no_second_refresh(
    alice: Person, provider: ServedProvider, broker: Served
) -> None:
    with provider.hold("keys") as reached, ended(alice.start("token")) as token:
        assert reached.wait(60)
        killed(renewing(token), token.pid)
    assert works(broker, alice.done("token"))
    assert provider.count("refresh_token") == 1


def test_a_crash_during_the_exchange_costs_no_second_refresh(
    alice: Person, provider: ServedProvider, broker: Served
) -> None:
    broker.send(signal.SIGSTOP)
    try:
        with ended(alice.start("token")) as token:
            assert until(lambda: alice.session.received != "", 60)
            time.sleep(0.3)  # it has sent the ID token, or is about to
            killed(renewing(token), token.pid)
    finally:
        broker.send(signal.SIGCONT)
    assert works(broker, alice.done("token"))
    assert provider.count("refresh_token") == 1


def test_crashes_at_any_time_lose_no_session_at_a_provider_that_waits(
    alice: Person, provider: ServedProvider, broker: Served
) -> None:
    provider.reuse_allowed = True
    moments = random.Random(14)  # noqa: S311  a test
    for _ in range(25):
        with ended(alice.start("token")) as token:
            time.sleep(moments.uniform(0.2, 1.5))
            children = Path(f"/proc/{token.pid}/task/{token.pid}/children")
            renewers = children.read_text().split() if _runs(token.pid) else []
            killed(*map(int, renewers), token.pid)
        session = alice.session  # never damaged
        alice.sessions.save(replace(session, access_expires=time.time() - 1))
    assert works(broker, alice.done("token"))


# faas-cli


def test_faas_cli_deploys_after_a_login_and_not_after_a_logout(
    alice: Person, broker: Served
) -> None:
    stack = "functions: {figlet: {image: registry.example.com/figlet:1, namespace: dev}}\n"
    (alice.home / "stack.yaml").write_text(stack)
    real = shutil.which("faas-cli")
    program = [real] if real else [sys.executable, str(ROOT / "tests" / "harness" / "faas_cli.py")]

    def deploy() -> subprocess.CompletedProcess[str]:
        command = alice.start_program([*program, "deploy"], OPENFAAS_URL=broker.url)
        return finished(command)

    alice.done("token")  # renews it for faas-cli, too
    first = deploy()
    assert first.returncode == 0, first.stdout + first.stderr
    alice.done("logout", "--no-browser")
    assert deploy().returncode == 1
    alice.done("login")
    assert deploy().returncode == 0
