"""Race conditions: attacks by requests, reloads and disconnects during an exchange."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx2
import pytest

from tests.harness.broker import DOCUMENTS, InProcess, catalog_of, form, said

TURNS = range(16)
"""More turns of the event loop than an exchange takes."""
Permitted = tuple[tuple[str, ...], list[str]]
OTHER_DOCUMENTS = DOCUMENTS.replace("{name: octo-deployer}", "{name: watcher}").replace(
    '"prod:env", "prod:cows"', '"prod:env"'
)
BEFORE: Permitted = (("octo-deployer", "octo-invoker"), ["prod:env", "prod:cows"])
AFTER: Permitted = (("octo-invoker", "watcher"), ["prod:env"])


@pytest.fixture
def broker() -> InProcess:
    return InProcess()


async def after(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def test_one_token_sent_many_times_concurrently_is_exchanged_once(broker: InProcess) -> None:
    token = broker.job()

    async def story(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        return await asyncio.gather(
            *(client.post("/oauth/token", data=form(token)) for _ in range(20))
        )

    reasons = Counter(answer.json().get("reason") for answer in broker.tell(story))
    assert reasons == {None: 1, "already_used": 19}


@pytest.mark.parametrize("turns", TURNS)
def test_an_exchange_uses_one_snapshot_of_documents_that_change_meanwhile(
    broker: InProcess, turns: int
) -> None:
    async def story(client: httpx2.AsyncClient) -> httpx2.Response:
        asked = form(broker.job(), scope="function")
        asking = asyncio.create_task(client.post("/oauth/token", data=asked))
        await after(turns)
        broker.source.catalog = catalog_of(OTHER_DOCUMENTS)
        return await asking

    function: Any = said(broker.tell(story).json()["access_token"])["function"]
    (event,) = broker.journal.events
    assert (event.roles, function["permissions"]) in (BEFORE, AFTER)


@pytest.mark.parametrize("turns", TURNS)
def test_an_exchange_cancelled_at_any_await_restores_the_token_or_has_spent_it(
    broker: InProcess, turns: int
) -> None:
    token = broker.job()

    async def story(client: httpx2.AsyncClient) -> bool:
        asking = asyncio.create_task(client.post("/oauth/token", data=form(token)))
        await after(turns)
        gone = asking.cancel()
        (answer,) = await asyncio.gather(asking, return_exceptions=True)
        return gone and isinstance(answer, asyncio.CancelledError)

    gone = broker.tell(story)
    answers = [broker.exchange(token).status_code for _ in range(2)]
    assert answers == ([200, 400] if gone else [400, 400])


def test_concurrent_failures_all_count_against_the_rate_limit() -> None:
    broker = InProcess(failed_exchanges=2)

    async def story(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        return await asyncio.gather(
            *(client.post("/oauth/token", data=form(broker.job(aud="other"))) for _ in range(10))
        )

    reasons = {answer.json()["reason"] for answer in broker.tell(story)}
    assert reasons == {"wrong_audience"}
    waiting = broker.exchange()
    assert waiting.status_code == 429
    assert int(waiting.headers["retry-after"]) == 60, "the most that anybody owes"
