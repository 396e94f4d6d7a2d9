"""
The pages of `docs/` that messages name, and the addresses where people read them.

A message names a page by its path within the project. If the docs are published, it names their
address instead: that of the broker's setting `docs-url`, and in clients of the same variable,
`FEDERATION_DOCS_URL`.
"""

from __future__ import annotations

import re

TROUBLESHOOTING = "troubleshooting.md"
REFUSALS = "refusals.md"
LINT = "lint.md"
DOCUMENTS = "documents.md"
PAGES = (REFUSALS, LINT, DOCUMENTS, TROUBLESHOOTING)
"""The pages that `federation explain CODE` reads. They are in the package."""

_WITHIN_THE_PROJECT = "docs"
# Without a query or fragment, and with no character that an `error_uri` may not hold (RFC 6749,
# section 5.2).
_ADDRESS = re.compile(r"https?://[!$-;=@-\[\]-~]+")
_ADDRESS_CHARS = 500


def docs_address(text: str) -> str:
    """
    Return the address of the docs in *text*, without a slash at its end.

    Everybody who is refused is told it, so it may hold no password.
    Raises: ValueError if it is not an address that a page's name can be added to.
    """
    if "@" in text[:_ADDRESS_CHARS]:
        raise ValueError(
            "it must be without @: everybody reads it, so it holds no user or password"
        )
    if len(text) > _ADDRESS_CHARS or not _ADDRESS.fullmatch(text):
        raise ValueError(
            f"{text[:_ADDRESS_CHARS]!r} must be like https://docs.example.com/federation: the"
            " address under which the pages of docs/ are, such as refusals.md"
        )
    return text.rstrip("/")


def page(name: str, docs: str | None = None) -> str:
    """Return where the page *name* is: at the address *docs*, or its path within the project."""
    return f"{docs or _WITHIN_THE_PROJECT}/{name}"


def anchor(title: str) -> str:
    """Return the anchor of the heading *title*, as forges make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def of_refusal(reason: str) -> str:
    """Return the page about a reason of a refusal, with the anchor of its section."""
    return f"{REFUSALS}#{anchor(reason)}"
