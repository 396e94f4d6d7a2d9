"""Each example passes, alone and with all others, and admits exactly the sample tokens that it says it admits."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from federation.claims import Claims
from federation.cli import main
from federation.cli.check import check
from federation.documents.model import JwtIssuer, Policy, Role
from federation.documents.parse import parse
from federation.explained import outcome
from federation.policy.index import PolicySets
from federation.policy.roles import evaluate
from federation.policy.rule_tests import judge
from federation.sources.files import load
from federation.sources.rule_tests import load_rule_tests

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
SAMPLES = {
    path.stem: Claims(json.loads(path.read_text("utf-8")))
    for path in sorted((HERE / "vectors" / "claims").glob("*.json"))
}


def with_issuer(path: Path) -> list[Path]:
    """The example, and the file with its JwtIssuer if it says that it is in another."""
    named = re.search(r"# The JwtIssuer is in (\S+\.yaml):", path.read_text("utf-8"))
    return [path, EXAMPLES / named[1]] if named else [path]


def roles_of(path: Path) -> set[str]:
    documents = parse(path.name, path.read_bytes()).documents
    return {document.name for document in documents if isinstance(document, Role)}


def said(path: Path) -> list[str]:
    """The sample tokens that the example's comment says it admits."""
    comment = path.read_text("utf-8")
    found = re.search(r"this Role admits:\n((?:#   \S+\n)+)", comment)
    assert found, f"{path.name} does not say what it admits"
    return [line.removeprefix("#").strip() for line in found[1].splitlines()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_passes_with_the_jwt_issuer_that_it_names(path: Path) -> None:
    paths = with_issuer(path)
    result = CliRunner().invoke(check, [*map(str, paths), "--strict"])
    count = 3 if len(paths) == 1 else 5
    assert (result.exit_code, result.output) == (0, f"{count} documents: no problems\n")


def test_the_examples_pass_as_one_folder() -> None:
    result = CliRunner().invoke(check, [str(EXAMPLES), "--strict"])
    issuers = sum(len(with_issuer(path)) == 1 for path in FILES)
    told = f"{2 * len(FILES) + issuers} documents: no problems\n"
    assert (result.exit_code, result.output) == (0, told)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_admits_the_tokens_that_it_says_and_no_others(path: Path) -> None:
    catalog = load(with_issuer(path)).catalog
    assert catalog is not None
    roles = [role for role in catalog.roles if role.name in roles_of(path)]
    admitted = [
        name
        for name, claims in SAMPLES.items()
        if (issuer := catalog.issuers.get(str(claims["iss"])))
        and any(held.admits for held in evaluate(roles, issuer.provider, claims))
    ]
    assert admitted == sorted(said(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_holds_one_document_of_each_kind(path: Path) -> None:
    documents = parse(path.name, path.read_bytes()).documents
    issuer = [JwtIssuer] if len(with_issuer(path)) == 1 else []
    assert [type(document) for document in documents] == [*issuer, Policy, Role]


def test_the_rule_tests_of_the_examples_pass_and_decide_every_rule() -> None:
    result = CliRunner().invoke(main, ["test", str(EXAMPLES), "--coverage-fail-under", "100"])
    assert (result.exit_code, result.output.splitlines()[0][:13]) == (0, "coverage 100 "), (
        result.output
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_has_rule_tests_that_notice_each_condition_that_is_lost(path: Path) -> None:
    catalog = load([EXAMPLES]).catalog
    assert catalog is not None
    tests = load_rule_tests([EXAMPLES / "tests" / path.name]).tests
    for role in (each for each in catalog.roles if each.name in roles_of(path)):
        for lost in role.conditions:
            if lost.key == "jwt:iss":
                continue  # a Role without it is refused when it is read
            left = tuple(each for each in role.conditions if each is not lost)
            roles = (replace(role, conditions=left), *(o for o in catalog.roles if o is not role))
            wider = replace(catalog, roles=roles, before=None)
            results = (
                judge(test, outcome(wider, claims, PolicySets(), now=0), wider)
                for test, claims in tests
            )
            assert not all(result.passed for result in results), lost


def test_every_example_is_in_the_readme() -> None:
    table = (EXAMPLES / "README.md").read_text("utf-8")
    assert set(re.findall(r"\]\((\S+\.yaml)\)", table)) == {path.name for path in FILES}
