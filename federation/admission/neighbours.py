"""
Reads the other objects that an object is compared with, anew for each review.

A mirror would answer faster, and a cache would cost less. But JwtIssuer, Policy and Role are often
applied together, within milliseconds, and a warning about an object that has just come would be
wrong. The JwtIssuers of a namespace are few. Roles are never read.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from federation.documents.kubernetes.api_objects import ApiObject, read_object
from federation.documents.model import JwtIssuer
from federation.documents.schema import API_VERSION
from federation.sources.kubernetes.connection import Connection, Trouble
from federation.sources.kubernetes.fields import mapping, text

ISSUERS = 500
"""The most JwtIssuers of a namespace. With more, nothing that names an issuer is admitted."""
_PAGE = 20
"""An object has at most 1.5 MiB, so a page stays below the connection's bound."""
_POLICIES = 16
"""So many Policies of a Role are looked for. The others get no warning if they are missing."""
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
"""The pattern of an object's name. A Role may name a Policy by any text."""


@dataclass(slots=True)
class NeighbourReader:
    """Reads the JwtIssuers and Policies of the connection's namespace."""

    connection: Connection
    _read: dict[tuple[str, str], ApiObject] = field(default_factory=dict, repr=False)
    """Each JwtIssuer as it was parsed last, by uid and version, so that it is not parsed again."""

    async def issuers(self, without: str = "") -> Mapping[str, JwtIssuer]:
        """
        Return the JwtIssuers in force by `iss`, without the one called *without*.

        Raises: Trouble.
        """
        items = [item async for item in self._items()]
        self._read = {(item.uid, item.resource_version): item for item in items}
        claimed: dict[str, ApiObject] = {}
        for item in sorted(items, key=lambda item: item.age):
            found = item.document or item.readable
            if item.name != without and isinstance(found, JwtIssuer) and found.iss:
                # A bad object keeps its claim, so that no younger one comes into force by that.
                claimed.setdefault(found.iss, item)
        in_force = ((iss, item.document) for iss, item in claimed.items())
        return {iss: issuer for iss, issuer in in_force if isinstance(issuer, JwtIssuer)}

    async def missing_policies(self, names: Sequence[str]) -> frozenset[str]:
        """Return those of *names* that no Policy has; only the first 16 are looked for. Raises: Trouble."""
        looked_for = names[:_POLICIES]
        found = await asyncio.gather(*(self._exists(name) for name in looked_for))
        return frozenset(name for name, exists in zip(looked_for, found, strict=True) if not exists)

    async def _exists(self, name: str) -> bool:
        # Anything else could lead this program, and its rights, to another path of the API server.
        if not _NAME.fullmatch(name):
            return False
        try:
            path = f"{self._folder}/policies/{quote(name, safe='')}"
            await self.connection.request("GET", path)
        except Trouble as trouble:
            if trouble.status == 404:
                return False
            raise
        return True

    async def _items(self) -> AsyncIterator[ApiObject]:
        count, token = 0, ""
        while True:
            params = {"limit": str(_PAGE), **({"continue": token} if token else {})}
            page = await self.connection.request("GET", f"{self._folder}/jwtissuers", params=params)
            for item in self._items_of(page):
                count += 1
                if count > ISSUERS:
                    raise Trouble(f"the namespace has more than {ISSUERS} JwtIssuers")
                yield item
            token = text(mapping(page.get("metadata")), "continue")
            if not token:
                return

    def _items_of(self, page: Mapping[str, Any]) -> Iterator[ApiObject]:
        items = page.get("items")
        if not isinstance(items, list):
            raise Trouble("a list of JwtIssuers has no items")
        for raw in items:
            metadata = raw.get("metadata") if isinstance(raw, dict) else None
            if not isinstance(metadata, dict):
                raise Trouble("an item of a list of JwtIssuers has no metadata")
            known = self._read.get((text(metadata, "uid"), text(metadata, "resourceVersion")))
            # A list's items may come without apiVersion and kind.
            yield known or _slim(
                read_object({"apiVersion": API_VERSION, "kind": "JwtIssuer", **raw})
            )

    @property
    def _folder(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.connection.namespace}"


def _slim(item: ApiObject) -> ApiObject:
    """Drop keys and certificates, which the rules about Roles do not read and which may be large."""
    documents = tuple(
        replace(document, jwks=None, ca_bundle=None)
        if isinstance(document, JwtIssuer)
        else document
        for document in item.parsed.documents
    )
    return replace(item, parsed=replace(item.parsed, documents=documents, problems=()))
