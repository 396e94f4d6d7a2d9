"""docs/documents.md agrees with the code, and its examples can be adopted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation.documents.assemble import assemble
from federation.documents.codes import Code
from federation.documents.model import ACTION_SETS
from federation.documents.parse import parse
from federation.documents.schema import IssuerSpec, PolicySpec, RoleSpec, Statement
from federation.errors import Severity
from federation.policy.conditions import ALIASES, Operator

PAGE = (Path(__file__).parent.parent / "docs" / "documents.md").read_text("utf-8")
BLOCKS = [b for b in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "apiVersion:" in b]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_example_is_without_errors(block: str) -> None:
    parsed = parse("documents.md", block.encode())
    assert parsed.documents
    assert parsed.problems == ()


def test_all_examples_together_can_be_adopted() -> None:
    assembled = assemble([parse("documents.md", block.encode()) for block in BLOCKS])
    assert [str(p) for p in assembled.problems if p.severity is Severity.ERROR] == []


def test_the_first_example_has_no_warnings() -> None:
    assert assemble([parse("documents.md", BLOCKS[0].encode())]).problems == ()


@pytest.mark.parametrize("code", [code.value for code in Code])
def test_every_code_has_one_row(code: str) -> None:
    assert PAGE.count(f"\n| `{code}` | ") == 1


@pytest.mark.parametrize(
    "word",
    [
        *(
            name
            for model in (IssuerSpec, PolicySpec, RoleSpec, Statement)
            for name in model.names()
        ),
        *(operator.value for operator in Operator if operator is not Operator.PRINCIPAL),
        *ALIASES,
        *ACTION_SETS,
    ],
)
def test_every_word_of_documents_is_on_the_page(word: str) -> None:
    assert f"`{word}`" in PAGE or f"`spec.{word}`" in PAGE


def test_every_link_within_the_page_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= headings
