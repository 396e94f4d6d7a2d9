"""`docs/lint.md` agrees with the rules, and its examples give the codes that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation.documents.assemble import Assembled, assemble
from federation.documents.parse import parse
from federation.documents.rules.lint import CODES

PAGE = (Path(__file__).parents[1] / "docs" / "lint.md").read_text("utf-8")
PREAMBLE, *_SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
SECTIONS = {section.partition(" ")[0]: section for section in _SECTIONS}


def fenced(text: str) -> list[str]:
    """The YAML blocks of *text*."""
    return re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def loaded(block: str) -> Assembled:
    """*block*, beside the documents that the page puts beside every example."""
    [beside] = fenced(PREAMBLE)
    return assemble([parse("lint.md", f"{beside}---\n{block}".encode())])


def test_every_code_has_a_section_and_every_section_a_code() -> None:
    assert list(SECTIONS) == list(CODES)


@pytest.mark.parametrize("code", CODES)
def test_a_section_is_titled_like_its_code(code: str) -> None:
    title = SECTIONS[code].partition("\n")[0]
    assert title.lower() == f"{code} {CODES[code]}".lower()
    assert f"(#{title.lower().replace(' ', '-')})" in PREAMBLE


@pytest.mark.parametrize("code", CODES)
def test_the_bad_document_gives_its_code_and_the_good_one_nothing(code: str) -> None:
    section = SECTIONS[code]
    bad, good = fenced(section)
    assert section.index("\nBad:\n") < section.index("\nGood:\n")
    assert [problem.code for problem in loaded(bad).problems] == [code]
    assert loaded(good).problems == ()


@pytest.mark.parametrize("code", CODES)
def test_a_section_says_what_and_why(code: str) -> None:
    assert re.search(r"^(Refused|Reported)[:,]", SECTIONS[code], re.MULTILINE)
    assert re.search(r"^Why: ", SECTIONS[code], re.MULTILINE)
