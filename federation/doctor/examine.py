"""
Runs all checks at the same time, each within a limit, and returns what they found in a fixed order.

What cannot be found out within the limit is wrong, with the words for it: a check never hangs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from federation.config import Settings
from federation.doctor import folder, machine, ports, servers, variables
from federation.doctor.documents import Read, read
from federation.doctor.finding import (
    Finding,
    Word,
    fail,
    refused_documents,
    refused_settings,
    warn,
)
from federation.doctor.issuers import issuers, not_asked
from federation.documents.catalog import Catalog
from federation.errors import DocumentsRefused, SettingsRefused
from federation.outbound import Outbound

_SECONDS = 12.0
"""Of each check. Reading the documents and then asking the issuers are two."""

Check = Awaitable[Sequence[Finding]]


async def examine(
    settings: Settings,
    outbound: Outbound,
    environ: Mapping[str, str],
    clock: Callable[[], float] = time.time,
    *,
    files: bool = True,
) -> list[Finding]:
    """
    Return what all checks found. It takes at most twice the limit of one.

    Without *files* the state folder is left alone: this user might leave files in it that the
    broker's user cannot use. Nor is a bearerTokenFile sent: this user, who may be root, can read
    files that the broker cannot, and whoever writes documents names the file and who gets it.
    """
    reading = asyncio.create_task(read(settings, outbound))

    async def documents() -> Sequence[Finding]:
        return (await asyncio.shield(reading)).findings

    async def keys() -> Sequence[Finding]:
        catalog = await _catalog(reading)
        known = list(catalog.issuers.values())
        asked = [each for each in known if files or not each.bearer_token_file]
        found = await limited("issuers", issuers(asked, settings, outbound, clock)) if asked else ()
        return [*found, *(not_asked(each) for each in known if each not in asked)]

    checks = [
        limited("settings", variables.understood(settings, environ)),
        limited("program", machine.program()),
        limited("process", machine.process()),
        limited("proxies", machine.outbound_understood(outbound)),
        limited("documents", documents()),
        keys(),
        *(_of_files(settings) if files else ()),
        *(
            [limited("shared state", servers.shared_state(settings))]
            if settings.shared_state
            else ()
        ),
        limited("port", ports.ports(settings)),
        limited("upstream", servers.upstream(settings, outbound), late=Word.WARN),
        limited("webhook", servers.webhook(settings, outbound), late=Word.WARN),
    ]
    try:
        return [finding for found in await asyncio.gather(*checks) for finding in found]
    finally:
        reading.cancel()


def _of_files(settings: Settings) -> Iterator[Coroutine[Any, Any, Sequence[Finding]]]:
    yield limited("state", folder.state_folder(settings))
    yield limited("audit journal", folder.journal(settings))
    yield limited("signing keys", folder.signing_keys(settings))
    if not settings.shared_state:
        yield limited("store", folder.store(settings))


async def examine_without_settings(outbound: Outbound | None) -> list[Finding]:
    """Return what can be found without settings that can be used."""
    checks = [limited("program", machine.program()), limited("process", machine.process())]
    if outbound:
        checks.append(limited("proxies", machine.outbound_understood(outbound)))
    return [finding for found in await asyncio.gather(*checks) for finding in found]


async def limited(check: str, work: Check, *, late: Word = Word.FAIL) -> Sequence[Finding]:
    """Return what *work* found. If it takes too long that is a finding itself, of the word *late*."""
    try:
        async with asyncio.timeout(_SECONDS):
            return await work
    except TimeoutError:
        said, advice = f"no answer within {_SECONDS:g} s", "look at the disk, the network and DNS"
        return [(warn if late is Word.WARN else fail)(check, said, advice)]
    except SettingsRefused as refused:
        return list(refused_settings(refused))
    except DocumentsRefused as refused:
        return list(refused_documents(refused))
    except Exception as error:  # the error boundary: one check must not stop the others
        # Its text may hold a part of a URL or a file, and with it a secret.
        said = f"the check itself failed: {type(error).__name__}"
        return [fail(check, said, "this is a bug: please report it, with what the settings are")]


async def _catalog(reading: asyncio.Task[Read]) -> Catalog:
    """Return the catalog that is read, an empty one if it cannot be."""
    await asyncio.wait({reading}, timeout=_SECONDS)
    if not reading.done() or reading.cancelled() or reading.exception():
        return Catalog()
    return reading.result().catalog
