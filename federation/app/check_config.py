"""
`check_config(settings)`: finds what would keep the broker from starting, without starting it.

It reads what `build` reads, by the same functions. No port is bound, and no key, folder or
database is made: it may run beside a broker that serves, and as another user before one does.
"""

from __future__ import annotations

import time

from federation.app import parts
from federation.app.documents import Documents, read_documents
from federation.config import Settings, read_outbound
from federation.documents.catalog import Catalog
from federation.errors import Problems
from federation.outbound import Outbound
from federation.server.metrics import Metrics
from federation.text import counted


def check_config(settings: Settings) -> str:
    """
    Check the documents, every file that a setting names, and the shared state.

    Return what would be served, in words. A shared state that does not answer is logged, as at a
    start, which it does not keep from succeeding.
    Raises: SettingsRefused, DocumentsRefused, with everything that is wrong.
    """
    problems, documents, way = Problems(), None, Outbound()
    with problems.collected():
        way = read_outbound()
    with problems.collected():
        documents = read_documents(settings, Metrics(), time.time, None, None, outbound=way)
    with problems.collected():
        parts.known_keys(settings)
    with problems.collected():
        parts.upstream(settings, way)
    with problems.collected():
        parts.check_webhook(settings)
    with problems.collected():
        parts.check_shared_state(settings)
    problems.refuse()
    assert documents is not None  # noqa: S101  for mypy: else it was refused
    return _described(settings, documents)


def _described(settings: Settings, documents: Documents) -> str:
    told = [summary(documents.files.current())] if documents.files else []
    if settings.kubernetes_namespace:
        told.append(f"the objects of namespace {settings.kubernetes_namespace}, not read yet")
    return " and ".join(told)


def summary(catalog: Catalog) -> str:
    """Return how many documents *catalog* has, and how many warnings there are about them."""
    issuers, roles = len(catalog.issuers), len(catalog.all_roles)
    policies = len(catalog.policies)
    named = f"{policies} {'Policy' if policies == 1 else 'Policies'}"
    shadow = f" ({len(catalog.shadow_roles)} in the shadow)" if catalog.shadow_roles else ""
    told = f"{counted(issuers, 'JwtIssuer')}, {counted(roles, 'Role')}{shadow}, {named}"
    warnings = len(catalog.warnings)
    return f"{told}; {counted(warnings, 'warning')}" if warnings else told
