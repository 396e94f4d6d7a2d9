"""Each example passes by itself, and admits exactly the sample tokens that it says it admits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from federation.claims import Claims
from federation.cli.check import check
from federation.documents.model import JwtIssuer, Policy, Role
from federation.documents.parse import parse
from federation.policy.roles import evaluate
from federation.sources.files import load

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
SAMPLES = {
    path.stem: Claims(json.loads(path.read_text("utf-8")))
    for path in sorted((HERE / "vectors" / "claims").glob("*.json"))
}


def said(path: Path) -> list[str]:
    """The sample tokens that the example's comment says it admits."""
    comment = path.read_text("utf-8")
    found = re.search(r"this Role admits:\n((?:#   \S+\n)+)", comment)
    assert found, f"{path.name} does not say what it admits"
    return [line.removeprefix("#").strip() for line in found[1].splitlines()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_passes_by_itself(path: Path) -> None:
    result = CliRunner().invoke(check, [str(path), "--strict"])
    assert (result.exit_code, result.output) == (0, "3 documents: no problems\n")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_admits_the_tokens_that_it_says_and_no_others(path: Path) -> None:
    catalog = load([path]).catalog
    assert catalog is not None
    admitted = [
        name
        for name, claims in SAMPLES.items()
        if (issuer := catalog.issuers.get(str(claims["iss"])))
        and any(held.admits for held in evaluate(catalog.roles, issuer.provider, claims))
    ]
    assert admitted == sorted(said(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_holds_one_document_of_each_kind(path: Path) -> None:
    documents = parse(path.name, path.read_bytes()).documents
    assert [type(document) for document in documents] == [JwtIssuer, Policy, Role]


def test_every_example_is_in_the_readme() -> None:
    table = (EXAMPLES / "README.md").read_text("utf-8")
    assert set(re.findall(r"\]\((\S+\.yaml)\)", table)) == {path.name for path in FILES}
