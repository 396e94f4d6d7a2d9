"""A broker with a trail on disk, for tests of the API that explains and shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from federation.audit.journal import FileJournal
from federation.audit.segments import OUTSIDERS
from tests.harness.api import AUDIT, EXPLAIN, call
from tests.harness.documents import DOCUMENTS, catalog_of
from tests.harness.gateway import Front
from tests.harness.journal_writer import sign

__all__ = ["READERS", "Asking"]

READERS = """
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {name: documents}
spec:
  statement: [{sid: read, effect: Allow, action: ["Documents:Read"], resource: ["*"]}]
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {name: trail}
spec:
  statement: [{sid: read, effect: Allow, action: ["Audit:Read"], resource: ["*"]}]
"""
"""Policies for the two actions of the broker's own."""


class Asking(Front):
    """A broker whose documents are `DOCUMENTS` with `READERS`."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.trail = folder / "state" / "audit"
        super().__init__(folder, state_folder=folder / "state", **settings)
        self.source.catalog = catalog_of(DOCUMENTS + READERS)

    def holding(self, *policies: str) -> str:
        """A token with *policies* of the documents."""
        return self.signed({**self.said(), "policy": list(policies)})

    def keep(self) -> list[str]:
        """Write the events that were recorded to the journal on disk. Return their ids."""
        events, self.journal.events = self.journal.events, []

        async def written() -> None:
            owed = FileJournal(self.trail, 64 * 1024 * 1024, sign=sign)
            outsiders = FileJournal(self.trail / OUTSIDERS, 16 * 1024 * 1024, sign=sign, owed=False)
            for event in events:
                await (owed if event.owed else outsiders).record(event)
            await asyncio.gather(owed.aclose(), outsiders.aclose())

        asyncio.run(written())
        return [event.event_id for event in events]

    def explained(self, token: str | None = None, **body: Any) -> Mapping[str, Any]:
        """The explanation of what *body* asks, by default with all rights."""
        answer = call(self, EXPLAIN, token or self.holding("documents", "trail"), json=body)
        assert answer.status_code == 200, answer.text
        told: Mapping[str, Any] = answer.json()
        return told

    def events(self, query: str = "", token: str | None = None) -> Mapping[str, Any]:
        """A page of the trail."""
        answer = call(self, AUDIT, token or self.holding("trail"), query=query)
        assert answer.status_code == 200, answer.text
        page: Mapping[str, Any] = answer.json()
        return page
