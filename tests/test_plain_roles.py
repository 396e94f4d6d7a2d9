"""A Role of the plain form is read as the models read it; all else is left to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from federation.documents.convert import Shared, lines_below
from federation.documents.field_types import LIST_VALUES, MAP_KEYS, VALUE_CHARS
from federation.documents.load_yaml import Repeated, whole_documents
from federation.documents.model import Role
from federation.documents.parse import parse, parse_value
from federation.documents.pieces import JsonLines, Piece, json_text
from federation.documents.plain_roles import PlainRoles
from federation.documents.tree import Document, Fields
from federation.policy.conditions import PATTERN_CHARS

PLAIN: Mapping[str, Any] = {
    "apiVersion": "iam.openfaas.com/v1",
    "kind": "Role",
    "metadata": {"name": "deployer"},
    "spec": {
        "policy": ["deploy", "look"],
        "principal": {"jwt:iss": "https://token.actions.githubusercontent.com"},
        "condition": {
            "StringEquals": {"jwt:repository_owner_id": ["1", "2"], "jwt:/ref": "refs/heads/main"},
            "ForAnyValue:StringLike": {"jwt:/groups": ["ops-*"]},
        },
    },
}


def of_json(text: str) -> Role | None:
    """The Role that a line of JSON is, read alone."""
    found = json_text(Piece(7, text.encode()))
    (role,) = PlainRoles("roles.yaml", Shared()).of_texts([found])
    return role


def of_yaml(text: str) -> tuple[Role | None, Document] | None:
    """The Role that a document of YAML is, read alone, and the page; None if it is no document."""
    pages = whole_documents(text.encode(), 7, Repeated())
    if not pages:
        return None
    return PlainRoles("roles.yaml", Shared()).of_page(pages[0]), pages[0]


def of_page(text: str) -> Role | None:
    """The Role that a document of YAML is, read alone."""
    found = of_yaml(text)
    return found and found[0]


def assert_as_the_models_have_it(role: Role, value: object) -> None:
    parsed = parse_value("roles.yaml", value)
    assert not parsed.problems
    assert parsed.documents == (role,)
    (whole,) = parsed.documents
    assert isinstance(whole, Role)
    assert whole.places == role.places


def test_plain_roles_are_read_in_both_spellings() -> None:
    for role in (
        of_json(json.dumps(PLAIN)),
        (of_yaml(yaml.safe_dump(PLAIN, sort_keys=False)) or (None,))[0],
    ):
        assert role is not None
        assert_as_the_models_have_it(role, PLAIN)


HOSTILE: list[Any] = [
    *(None, 1, 1.5, True, "", " ", "x", "*", "a\n", "\ud7ff\u200b", "y", "~", "{h}", "1_0"),
    *("x" * PATTERN_CHARS, "x" * (PATTERN_CHARS + 1), "x" * VALUE_CHARS, "x" * (VALUE_CHARS + 1)),
    *([], [""], ["a"], ["a", None], ["a", "b"], [["a"]], ["a"] * LIST_VALUES),
    *(["a"] * (LIST_VALUES + 1), {}, {"a": "b"}, {"jwt:ref": "x"}, {"jwt:ref": ["x", "y"]}),
    {f"jwt:{n}": "x" for n in range(MAP_KEYS + 1)},
    {f"jwt:{n}": "x" for n in range(MAP_KEYS)},
    *({"StringEqual": {"jwt:ref": "x"}}, {"name": "b"}, {"": {"jwt:iss": "x"}}),
]
KEYS = [
    *("", " ", "a", "name", "labels", "spec", "kind", "Kind", "status", "policy", "policies"),
    *("principal", "condition", "tokenExpiry", "effect", "jwt", "jwt:", "jwt:a", "jwt:/a", "jwt:/"),
    *("jwt:/a~2", "jwt:~", "jwt://", "JWT:a", "StringEqual", "StringEquals", "StringLike"),
    *("StringNotLike", "stringequal", "ForAnyValue:StringEqual", "ForAnyValue_StringEqual"),
    *("ForAllValues:StringEqual", "IpAddress", "jwt:" + "k" * 996, "jwt:" + "k" * 997),
]


def places(value: object, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place within *value*."""
    steps = value.items() if isinstance(value, dict) else enumerate(())
    if isinstance(value, list):
        steps = enumerate(value)
    return [here, *(found for key, inner in steps for found in places(inner, (*here, key)))]


Change = Callable[[Any, Any, object, str], None]


def _replace(where: Any, key: Any, hostile: object, _name: str) -> None:
    where[key] = hostile


def _rename(where: Any, key: Any, _hostile: object, name: str) -> None:
    if isinstance(where, dict):
        members = [(name if each == key else each, inner) for each, inner in where.items()]
        where.clear()
        where.update(members)


def _remove(where: Any, key: Any, _hostile: object, _name: str) -> None:
    del where[key]


def _add(where: Any, key: Any, hostile: object, name: str) -> None:
    if isinstance(where, dict):
        where[name] = hostile
    else:
        where.append(hostile)


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """Plain Roles with up to three changes."""
    made = deepcopy(dict(PLAIN))
    for _ in range(draw(st.integers(0, 3))):
        inner = [place for place in places(made) if place]
        if not inner:
            break
        *path, key = draw(st.sampled_from(inner))
        where: Any = made
        for step in path:
            where = where[step]
        change = draw(st.sampled_from([_replace, _rename, _remove, _add]))
        change(where, key, deepcopy(draw(st.sampled_from(HOSTILE))), draw(st.sampled_from(KEYS)))
    return made


def changed_once() -> Iterator[Any]:
    """The plain Role with each change, at each of its places."""
    for *path, key in filter(None, places(PLAIN)):
        changes: list[tuple[Change, object, str]] = [(_remove, None, "")]
        changes += [(change, hostile, "a") for change in (_replace, _add) for hostile in HOSTILE]
        changes += [(change, "x", name) for change in (_rename, _add) for name in KEYS]
        for change, hostile, name in changes:
            made = deepcopy(dict(PLAIN))
            where: Any = made
            for step in path:
                where = where[step]
            change(where, key, deepcopy(hostile), name)
            yield made


@pytest.mark.parametrize("read", [of_json, of_page])
def test_no_role_with_one_change_is_taken_that_the_models_have_a_problem_with(
    read: Callable[[str], Role | None],
) -> None:
    taken = 0
    for value in changed_once():
        role = read(json.dumps(value))
        if role is not None:
            assert_as_the_models_have_it(role, value)
            taken += 1
    assert taken > 100


@given(documents())
def test_no_role_is_taken_that_the_models_have_a_problem_with(value: Any) -> None:
    role = of_json(json.dumps(value))
    if role is not None:
        assert_as_the_models_have_it(role, value)


@given(documents())
def test_a_role_in_yaml_has_its_lines(value: Any) -> None:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    found = of_yaml(text)
    if found is None or found[0] is None:
        return
    role, page = found
    assert role is not None
    assert_as_the_models_have_it(role, value)
    assert isinstance(page.root, Fields)
    assert role.origin.line == page.root.line
    assert role.origin.below == lines_below(page.root, Shared())


LINE = json.dumps(PLAIN)
ODD = {
    "a key of the head twice": LINE.replace('{"apiVersion"', '{"kind": "Role", "apiVersion"'),
    "the spec twice": LINE[:-1] + ', "spec": {"policy": ["x"], "principal": {"jwt:iss": "x"}}}',
    "a key twice": LINE.replace('"jwt:/ref"', '"jwt:repository_owner_id": "3", "jwt:/ref"'),
    "an operator twice": LINE.replace('"StringEquals": {', '"StringEquals": {}, "StringEquals": {'),
    "a key twice with one value": LINE.replace('"jwt:/ref":', '"jwt:/ref": "x", "jwt:/ref":'),
    "a name twice": LINE.replace('{"name"', '{"name": "other", "name"'),
    "an escape": LINE.replace("deployer", "deploy\\u0065r"),
    "a quote in a value": LINE.replace("refs/heads/main", 'refs/\\"heads'),
    "not a number": LINE.replace('"refs/heads/main"', "NaN"),
    "many digits": LINE.replace('"refs/heads/main"', "1" * 5000),
    "a comma at the end": LINE[:-1] + ",}",
    "another text": '{"a": ',
    "a tab": LINE.replace(" ", "\t", 1),
    "many blanks": LINE.replace(": ", ":" + " " * 20, 1),
    "brackets": LINE[:-1] + ', "status": ' + "[" * 60 + "]" * 60 + "}",
    "a list": f"[{LINE}]",
    "a comment": LINE + " # x",
    "two of them": LINE + " " + LINE,
    "the older version": LINE.replace("iam.openfaas", "openfaas"),
    "a shadow": LINE[:-2] + ', "effect": "Shadow"}}',
    "a lifetime": LINE[:-2] + ', "tokenExpiry": "5m"}}',
    "no conditions": json.dumps(dict(PLAIN) | {"spec": {"policy": ["deploy"]}}),
    "a label": LINE.replace('{"name"', '{"labels": {}, "name"'),
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in ODD.items()])
def test_every_other_text_is_left_to_the_models(text: str) -> None:
    assert of_json(text) is None


def test_a_key_that_stands_there_twice_is_a_problem() -> None:
    found = parse("roles.yaml", ODD["a key twice with one value"].encode())
    assert [problem.code for problem in found.problems] == ["D003"]
    assert not found.documents


def test_a_page_with_a_key_twice_is_left_to_the_models() -> None:
    text = yaml.safe_dump(PLAIN) + "kind: Role\n"
    found = of_yaml(text)
    assert found is not None
    assert found[0] is None


def test_a_json_line_is_taken_exactly_where_it_is_json_for_yaml() -> None:
    piece = Piece(3, f"---\n{LINE}\n".encode())
    role = of_json(piece.text.decode())
    page = JsonLines().document(piece)
    assert role is not None
    assert page is not None
    assert role.origin.line == 8
    assert page.line == 4


def test_few_forms_are_kept_however_many_a_file_has() -> None:
    """A hostile file could have one for each Role."""
    reader = PlainRoles("roles.yaml", Shared())

    def read(condition: str) -> Role | None:
        text = LINE.replace("ForAnyValue:StringLike", condition)
        return reader.of_texts([json_text(Piece(7, text.encode()))])[0]

    assert read("ForAllValues:StringLike") is None
    assert not reader._forms
    for number in range(1100):
        role = read(f'StringLike": {{"jwt:{number}": "x"}}, "ForAnyValue:StringLike')
        assert role is not None
        assert role.conditions[-2].key == f"jwt:{number}"
    assert len(reader._forms) == 1000
