"""
The documents: those in files are read, those in the Kubernetes API are listed once.

They are read as the broker reads them. Statuses in Kubernetes are left alone.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from federation.app import parts
from federation.app.check_config import summary
from federation.app.documents import Documents, read_documents
from federation.config import Settings
from federation.doctor.finding import Finding, fail, ok, split, warn
from federation.documents.catalog import Catalog
from federation.outbound import Outbound
from federation.server.metrics import Metrics
from federation.sources.kubernetes.source import KubernetesSource

_LIST_SECONDS = 8.0
_TROUBLE_SECONDS = 2.5
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Read:
    """The findings about the documents, and the catalog that the broker would have."""

    findings: tuple[Finding, ...]
    catalog: Catalog


async def read(settings: Settings, outbound: Outbound) -> Read:
    """Read all documents. Raises: SettingsRefused, DocumentsRefused."""
    documents = await asyncio.to_thread(_documents, settings, outbound)
    findings = [*await _followed(documents)]
    catalog = documents.source.current()
    if not catalog.awaited:
        findings.append(_counted(catalog))
        findings += _sign_in(settings, catalog)
    return Read(tuple(findings), catalog)


def _documents(settings: Settings, outbound: Outbound) -> Documents:
    return read_documents(settings, Metrics(), time.time, None, None, outbound=outbound)


def _counted(catalog: Catalog) -> Finding:
    said = summary(catalog)
    if not catalog.issuers:
        return fail("documents", f"{said}: nobody is trusted", "federation init writes a first set")
    if not catalog.roles:
        return fail("documents", f"{said}: nobody is admitted", "add a Role: docs/documents.md")
    if catalog.warnings:
        said += " (federation check shows them)"
    return ok("documents", said)


def _sign_in(settings: Settings, catalog: Catalog) -> list[Finding]:
    published = parts.sign_in(settings)
    if published is None:
        return []
    if problem := published.problem(catalog):
        advice = "correct --sign-in-issuer and --sign-in-client-id, or the JwtIssuer's clients"
        return [warn("sign-in", problem, advice)]
    return [ok("sign-in", f"{published.issuer} as {published.client_id}")]


async def _followed(documents: Documents) -> list[Finding]:
    """Follow the Kubernetes API until a first set is adopted, or for some seconds."""
    source = documents.kubernetes
    if source is None:
        return []
    following = asyncio.create_task(source.run())
    try:
        await _first_list(source)
    finally:
        now = source.following()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await documents.aclose()
    if not now.adopted:
        why = now.trouble[0] if now.trouble else f"no whole list within {_LIST_SECONDS:g} s"
        return [fail("kubernetes", *split(why, _RIGHTS))]
    said = (
        f"{source.connection.url}, namespace {now.namespace}: {sum(now.objects.values())} objects"
    )
    found = [ok("kubernetes", said)]
    found += [warn("kubernetes", *split(trouble, _RIGHTS)) for trouble in now.trouble]
    advice = "kubectl describe shows the problems of each object"
    found += [warn("kubernetes", sentence, advice) for sentence in now.not_in_force]
    return found


async def _first_list(source: KubernetesSource) -> None:
    """Wait for a first set, while there is hope: for some seconds, and fewer after trouble."""
    began = time.monotonic()
    adopted = asyncio.ensure_future(source.first_adopted())
    try:
        while time.monotonic() - began < _LIST_SECONDS:
            await asyncio.wait({adopted}, timeout=_LOOK_SECONDS)
            passed = time.monotonic() - began
            if adopted.done() or (passed > _TROUBLE_SECONDS and source.following().trouble):
                return
    finally:
        adopted.cancel()


_RIGHTS = "see docs/kubernetes.md, sections Custom resources and Rights"
