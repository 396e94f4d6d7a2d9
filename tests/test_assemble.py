"""Assembling a set of documents: all of it becomes a catalog, or nothing."""

from __future__ import annotations

import time

import pytest

from federation.documents.assemble import DOCUMENTS, Assembled, assemble
from federation.documents.parse import Parsed, parse
from federation.errors import Severity
from tests.test_documents_load import ISSUER, POLICY, ROLE, SET, role_text


def together(*texts: str) -> Assembled:
    """Assemble each text as a file of its own: `0.yaml`, `1.yaml`, …"""
    return assemble([parse(f"{n}.yaml", text.encode()) for n, text in enumerate(texts)], "abc")


def codes(assembled: Assembled) -> set[str]:
    return {problem.code for problem in assembled.problems}


def test_a_set_without_errors_is_a_catalog() -> None:
    assembled = together(ISSUER, POLICY, ROLE)
    assert assembled.documents == 3
    assert assembled.catalog is not None
    assert list(assembled.catalog.issuers) == ["https://token.actions.githubusercontent.com"]
    assert list(assembled.catalog.policies) == ["dev-rw"]
    assert [role.name for role in assembled.catalog.roles] == ["deployer"]
    assert assembled.catalog.digest == "abc"


def test_warnings_do_not_keep_a_set_out() -> None:
    assembled = together(SET.replace("iam.openfaas.com/v1", "openfaas.com/v1"))
    assert assembled.catalog is not None
    assert assembled.catalog.warnings == assembled.problems
    assert [p.code for p in assembled.problems if p.code == "W111"] == ["W111"] * 3


def test_one_error_keeps_the_whole_set_out() -> None:
    assembled = together(SET, "a: b\n")
    assert assembled.catalog is None
    assert assembled.documents == 4
    assert codes(assembled) == {"D004"}


def test_problems_come_by_file_and_line() -> None:
    assembled = together(ISSUER + "  x: y\n  z: y\n", "- a\n", ROLE)
    places = [(problem.path, problem.line) for problem in assembled.problems]
    assert places == sorted(places)
    assert len({path for path, _ in places}) == 3


def test_a_trust_error_keeps_a_set_out() -> None:
    assembled = together(ISSUER, POLICY, role_text("condition: {StringEqual: {jwt:ref: [a]}}\n"))
    assert "T001" in codes(assembled)
    assert assembled.catalog is None


def test_names_are_unique_per_kind() -> None:
    renamed = POLICY.replace("dev-rw", "deployer"), ROLE.replace("dev-rw", "deployer")
    assert together(ISSUER, *renamed).catalog is not None


def test_a_name_taken_twice_says_where_the_first_is() -> None:
    assembled = together(SET, "\n" + POLICY)
    (problem,) = [p for p in assembled.problems if p.code == "D009"]
    assert (problem.path, problem.line, problem.field) == ("1.yaml", 4, "metadata.name")
    assert "0.yaml:8" in problem.message


def test_a_broken_policy_is_not_missing() -> None:
    assembled = together(ISSUER, POLICY.replace("Allow", "Permit"), ROLE)
    assert codes(assembled) == {"D007"}


def test_a_broken_issuer_is_not_missing() -> None:
    assembled = together(ISSUER + "  colour: red\n", POLICY, ROLE)
    assert codes(assembled) == {"D005"}


def test_a_policy_is_not_called_unused_because_its_role_is_broken() -> None:
    assembled = together(ISSUER, POLICY, ROLE + "  colour: red\n")
    assert codes(assembled) == {"D005"}


def test_a_role_gets_no_error_for_a_policy_that_an_unreadable_file_may_hold() -> None:
    assembled = together("a: [\n", ROLE)
    assert codes(assembled) == {"D002"}


def test_a_set_without_documents_is_an_error() -> None:
    assert codes(together()) == {"D021"}
    assert codes(together("# nothing\n")) == {"D021"}
    assert together().catalog is None


def test_a_set_with_too_many_documents_is_an_error() -> None:
    assembled = assemble([Parsed(found=DOCUMENTS), Parsed(found=1)])
    assert codes(assembled) == {"D001"}
    assert assembled.catalog is None


def roles(number: int) -> str:
    each = (
        ROLE.replace("deployer", f"deployer-{n}").replace('"74"', f'"{n}"') for n in range(number)
    )
    return "---\n".join([ISSUER, POLICY, *each])


def took(number: int) -> float:
    """Return the processor seconds that loading *number* Roles takes."""
    text = roles(number)
    start = time.process_time()
    assembled = together(text)
    assert assembled.catalog is not None
    assert len(assembled.catalog.roles) == number
    return time.process_time() - start


@pytest.mark.alone
@pytest.mark.e2e
def test_the_time_grows_with_the_number_of_documents_and_no_faster() -> None:
    assert took(8_000) < 16 * took(1_000)


@pytest.mark.alone
def test_a_thousand_documents_load_in_a_second() -> None:
    assert took(1_000) < 2.0


def test_severity_decides() -> None:
    assembled = together(SET)
    assert not [p for p in assembled.problems if p.severity is Severity.ERROR]
