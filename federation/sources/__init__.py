"""
The interface of a document source.

A source always has a catalog. Documents with errors never replace it.
"""

from __future__ import annotations

from typing import Protocol

from federation.documents.catalog import Catalog
from federation.errors import Problem


class Source(Protocol):
    """A place from which documents are read and watched."""

    def current(self) -> Catalog:
        """Return the catalog of the last set of documents that was adopted."""
        ...

    def problems(self) -> tuple[Problem, ...]:
        """Return the errors of the last set read, or nothing if it was adopted."""
        ...
