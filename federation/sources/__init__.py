"""
Where documents come from.

A source always has a catalog to serve: a set that cannot be adopted changes nothing.
"""

from __future__ import annotations

from typing import Protocol

from federation.documents.catalog import Catalog
from federation.errors import Problem

__all__ = ["Source"]


class Source(Protocol):
    """The documents as they stand now."""

    def current(self) -> Catalog:
        """The catalog to serve: the last set that was adopted."""
        ...

    def problems(self) -> tuple[Problem, ...]:
        """The errors of the last set read, if it was not adopted; empty when all is well."""
        ...
