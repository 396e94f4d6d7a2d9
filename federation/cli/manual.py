"""
The sections of the docs that a code names, read from the package: `federation explain T002`.

The wheel has the pages beside the code; in a checkout they are in `docs/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from federation.documents.codes import Code
from federation.documents.rules.lint import CODES
from federation.errors import Reason
from federation.pages import DOCUMENTS, LINT, PAGES, REFUSALS, TROUBLESHOOTING, anchor

_PLACES = (Path(__file__).parents[1] / "docs", Path(__file__).parents[2] / "docs")
"""In the package, and beside it in a checkout."""
_HEADING = re.compile(r"^(#{2,3}) (.+)$")
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


class Section(NamedTuple):
    """A section of a page: its title, its text, and where it is."""

    title: str
    text: str
    page: str
    """The page with the anchor of the section."""


def codes() -> tuple[str, ...]:
    """Return every code that has a section: of problems in documents, and of refusals."""
    return *CODES, *(code.value for code in Code), *(reason.value for reason in Reason)


def about(code: str) -> Section | None:
    """
    Return what the docs say about *code*, in any case; None if it is no code.

    Raises: OSError if the package lacks the docs.
    """
    if code.upper() in CODES:
        return _by_title(LINT, f"{code.upper()} {CODES[code.upper()]}")
    if code.lower() in {reason.value for reason in Reason}:
        return _by_title(REFUSALS, code.lower())
    if code.upper() in {one.value for one in Code}:
        return _row(code.upper())
    return None


def page_of(code: str) -> str:
    """Return the page about the *code* of a problem, with the anchor of its section."""
    if code in CODES:
        return f"{LINT}#{anchor(f'{code} {CODES[code]}')}"
    return f"{DOCUMENTS}#codes"


def mentioning(words: str) -> list[Section]:
    """
    Return the sections about trouble whose title or messages hold *words*, whatever the case.

    Raises: OSError if the package lacks the docs.
    """
    wanted = _plain(words)
    found = _sections(TROUBLESHOOTING)
    return [section for section in found if wanted in _plain(section.title + section.text)]


def _plain(text: str) -> str:
    return re.sub(r"[\s`]+", " ", text).casefold().strip()


def _by_title(page: str, title: str) -> Section | None:
    wanted = anchor(title)
    return next((one for one in _sections(page) if anchor(one.title) == wanted), None)


def _row(code: str) -> Section | None:
    """Return the row of the table of codes that is about *code*, as a section."""
    for line in _text(DOCUMENTS).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[0] == f"`{code}`":
            text = f"{_sentence(cells[1])}\n\n**Do:** {_sentence(cells[2])}"
            return Section(code, text, f"{DOCUMENTS}#codes")
    return None


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _sections(page: str) -> Iterator[Section]:
    """Yield the sections of *page* from its second level on, each with what is below it."""
    title, level, lines, fenced = "", 0, list[str](), False
    for line in [*_text(page).splitlines(), "## "]:
        fenced ^= line.startswith("```")
        found = None if fenced else _HEADING.match(line) or re.match(r"^(##) ?()$", line)
        if found is None or (title and len(found[1]) > level and page != TROUBLESHOOTING):
            lines.append(line)
            continue
        if title:
            yield Section(title, "\n".join(lines).strip(), f"{page}#{anchor(title)}")
        title, level, lines = found[2], len(found[1]), []


def _text(page: str) -> str:
    assert page in PAGES  # noqa: S101  others are not in the package
    for place in _PLACES:
        if (place / page).is_file():
            return (place / page).read_text("utf-8")
    raise FileNotFoundError(f"the docs are not installed: {page} is missing")


def for_terminal(section: Section) -> str:
    """Return *section* as text: of links only the words."""
    return f"{section.title}\n\n" + _LINK.sub(lambda link: link[1], section.text)
