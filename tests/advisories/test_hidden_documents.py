"""
Files that are passed over, and words about documents that strangers wrote.

A file with the name of another program's is passed over only if it holds nothing of ours: whoever
can name a file must not be able to hide a Deny. Nor may a document cost more time than it is long.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from federation.documents.parse import parse_value, passed_over
from federation.documents.platforms import owner_of, unrendered
from federation.errors import Severity
from federation.sources.files import load

DENY = {
    "apiVersion": "iam.openfaas.com/v1",
    "kind": "Policy",
    "metadata": {"name": "no-deletes"},
    "spec": {"statement": [{"effect": "Deny", "action": ["Function:Delete"], "resource": ["*"]}]},
}
LONG = 300_000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            json.dumps({"apiVersion": "v1", "kind": "List", "note": "x", "items": [DENY]}),
            id="a List with a key too many",
        ),
        pytest.param(
            json.dumps({"apiVersion": "v1", "kind": "list", "items": [DENY]}), id="a list, misspelt"
        ),
        pytest.param(json.dumps({"documents": [DENY]}), id="under another key"),
        pytest.param(json.dumps([[DENY]]), id="in a list of lists"),
        pytest.param(json.dumps(["x", [DENY]]), id="in a list beside a text"),
        pytest.param("|\n  " + json.dumps(DENY), id="in a text"),
        pytest.param(
            json.dumps({**DENY, "apiVersion": "IAM.OpenFaaS.com/v1", "kind": "policy"}),
            id="in other cases",
        ),
        pytest.param(
            json.dumps({**DENY, "apiVersion": "iam.openfass.com/v1", "kind": "Polcy"}),
            id="both words of the head misspelt",
        ),
        pytest.param(
            "apiVersion: example.com/v1\nkind: Other\napiVersion: iam.openfaas.com/v1\n",
            id="behind another head",
        ),
    ],
)
@pytest.mark.parametrize("name", ["kustomization.yaml", "values.yaml", "stack.yml"])
def test_no_name_of_a_file_hides_a_deny(tmp_path: Path, name: str, text: str) -> None:
    assert owner_of(name)
    (tmp_path / name).write_text(text, "utf-8")
    found = load([tmp_path])
    assert not found.passed_over
    assert any(problem.severity is Severity.ERROR for problem in found.problems)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("# nothing\n", id="a comment"),
        pytest.param(
            json.dumps(
                {
                    "resources": ["role.yaml"],
                    "patches": [{"target": {"kind": "Role", "name": "deploy"}, "patch": "x"}],
                }
            ),
            id="a patch of a Role",
        ),
    ],
)
def test_a_file_of_kustomize_is_still_passed_over(text: str) -> None:
    assert passed_over("/documents/kustomization.yaml", text.encode()) == "Kustomize"


def test_an_entity_of_backstage_is_still_passed_over() -> None:
    text = (
        b"apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata: {name: a}\nspec: {type: x}"
    )
    assert passed_over("/documents/catalog-info.yaml", text) == "Backstage"


@pytest.mark.parametrize("opening", ["${", "$(", "$[[", "{{", "<a", "%A"])
def test_a_placeholder_without_an_end_costs_no_more_than_its_length(opening: str) -> None:
    began = time.monotonic()
    unrendered(opening * LONG)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("value", ["${" * LONG, "a," * LONG + "a", "$[[" * LONG])
@pytest.mark.parametrize("field", ["action", "resource"])
def test_a_long_value_makes_neither_a_long_wait_nor_a_long_message(field: str, value: str) -> None:
    statement = {"effect": "Allow", "action": ["Function:List"], "resource": ["*"]}
    began = time.monotonic()
    for given in (value, [value]):
        document = {**DENY, "spec": {"statement": [{**statement, field: given}]}}
        problems = parse_value("object", document).problems
        assert problems
        assert all(len(str(problem)) < 1000 for problem in problems)
    assert time.monotonic() - began < 2
