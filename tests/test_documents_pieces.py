"""Files are read document by document, and what was read is remembered, without a difference."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.documents.load_yaml import Repeated, whole_documents, yaml_documents
from federation.documents.model import Role
from federation.documents.parse import Parsed, parse
from federation.documents.pieces import JsonLines, Piece, pieces
from federation.documents.tree import Document, Fault, Fields, Items, Value
from tests.harness.builders import GITHUB
from tests.harness.documents import DEPLOY, as_text, issuer, role

SET = [issuer("github", GITHUB), DEPLOY, *(role(f"r{n}", GITHUB, f"b{n}") for n in range(9))]


def shape(value: Value) -> object:
    """A value with all its lines."""
    if isinstance(value, Fields):
        members = [(key, value.lines[key], shape(inner)) for key, inner in value.items()]
        return value.line, members
    if isinstance(value, Items):
        return value.line, value.lines, [shape(inner) for inner in value]
    return value


def seen(page: Document | Fault) -> object:
    if isinstance(page, Fault):
        return page
    return page.line, page.duplicates, shape(page.root)


def in_pieces(data: bytes) -> list[object] | None:
    """The documents of *data* piece by piece; None if it must be read from its beginning."""
    found: list[object] = []
    repeated = Repeated()
    for piece in pieces(data):
        documents = whole_documents(piece.text, piece.line, repeated)
        if documents is None:
            return None
        found += map(seen, documents)
    return found


TEXTS = {
    "two documents": "a: 1\n---\nb: 2\n",
    "two of them on one line each": '--- {"a": "b"}\n--- {"c": 1}',
    "a comment before the first": "# one\n\n---\na: 1\n---\n# two\nb: 2\n",
    "empty documents": "---\n---\n\n---\na: 1\n---\n",
    "the end of a document is marked": "a: 1\n...\nb: 2\n---\nc: 3\n...\n",
    "a directive": "%YAML 1.1\n---\na: 1\n...\n%TAG ! tag:x,2000:\n---\nb: 2\n",
    "a marker in a block scalar": "a: |\n  x\n---\n  y\n",
    "a marker in quotes": 'a: "x\n---\ny"\n',
    "a marker with text after it": "---a: 1\nb: 2\n",
    "a marker that is indented": "a: |\n  ---\n  x\nb:\n ---\n",
    "an anchor of another document": "a: &x 1\n---\nb: *x\n",
    "an alias": "a: &x [1, 2]\nb: *x\n---\nc: 1\n",
    "a list that is not closed": "a: [1\n---\nb: 2\n",
    "Windows": "a: 1\r\n---\r\nb: 2\r\n",
    "a lone carriage return": "a: 1\r---\rb: 2\n---\nc: 3\n",
    "U+0085": "a: 1\x85---\x85b: 2\n---\nc: 3\n",
    "U+2028": "a: 1\u2028b: 2\n---\nc: 3\n",
    "U+2029 in a scalar": 'a: "x\u2029y"\n---\nc: 3\n',
    "a byte order mark within": "a: 1\n---\n\ufeffb: 2\n",
    "a tab": "a: 1\n---\t\nb:\t2\n",
    "duplicates": "a: 1\na: 2\n---\nb: {c: 1, c: 2}\n",
    "nothing": "",
    "only markers": "---\n---\n---",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in TEXTS.items()])
def test_a_file_whose_pieces_can_all_be_read_means_what_its_pieces_mean(text: str) -> None:
    data = text.encode()
    found = in_pieces(data)
    if found:
        assert found == [seen(page) for page in yaml_documents(data)]


@given(
    st.lists(
        st.sampled_from(
            ["---\n", "---", "--- ", "a: 1\n", "- b\n", "...\n", "# c\n", "\r", "\n", "'", '"']
        )
        | st.sampled_from(
            ["|\n", "[", "]", "{", "}", "&x ", "*x\n", "%YAML 1.1\n", " ", "\t", "\x85", "x"]
        ),
        max_size=12,
    )
)
def test_pieces_and_the_whole_never_differ(parts: list[str]) -> None:
    data = "".join(parts).encode()
    found = in_pieces(data)
    if found:
        assert found == [seen(page) for page in yaml_documents(data)]


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.sampled_from(["no", "~", "0123", "1_0", "a: b", "# c", "- d", "&e", "*f", "!g", "{h}", "'"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5), st.booleans(), st.booleans())
def test_json_on_one_line_is_read_as_yaml_reads_it(
    value: Mapping[str, object], as_ascii: bool, short: bool
) -> None:
    separators = (",", ":") if short else None
    line = json.dumps(value, ensure_ascii=as_ascii, separators=separators)
    piece = Piece(7, f"---\n{line}\n".encode(errors="surrogatepass"))
    quick = JsonLines().document(piece)
    if quick is not None:
        documents = whole_documents(piece.text, piece.line, Repeated())
        assert documents is not None
        assert [seen(quick)] == [seen(document) for document in documents]


@pytest.mark.parametrize(
    "line",
    [
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": "\\u0041"}',
        '{"a": "\\ud800"}',
        '{"a": "é"}',
        '{"a": "\x7f"}',
        '{"a":\t1}',
        f'{{"{"k" * 1001}": 1}}',
        f'{{"a"{" " * 1024}: 1}}',
        f'{{"{"k" * 1000}"{" " * 24}: 1}}',
        f'{{"a": {"[" * 51}1{"]" * 51}}}',
        '{"a": 1} # note',
        '{"a": 1,}',
        "{a: 1}",
        '{"a": 01}',
        '---{"a": 1}',
        '{"a": 1}{"b": 2}',
        "[1]",
        f'{{"a": "{"x" * 65536}"}}',
    ],
)
def test_what_json_and_yaml_could_read_differently_is_left_to_yaml(line: str) -> None:
    assert JsonLines().document(Piece(1, line.encode())) is None


def test_a_reader_of_json_lines_is_freed_without_the_collector() -> None:
    gc.disable()
    try:
        reader = JsonLines()
        assert reader.document(Piece(1, b'{"a": {"b": 1}}')) is not None
        gone = weakref.ref(reader)
        del reader
        assert gone() is None
    finally:
        gc.enable()


# What was read before is known


def parsed(text: str, before: Parsed | None = None) -> Parsed:
    known = before.remembered if before else {}
    return parse("roles.yaml", text.encode(), known=known)


def test_of_a_changed_file_only_the_changed_document_is_read_again() -> None:
    before = parsed(as_text(*SET))
    changed = [*SET[:-1], role("r8", GITHUB, "another")]
    after = parsed(as_text(*changed), before)
    assert after == parsed(as_text(*changed))
    assert all(a is b for a, b in zip(after.documents[:-1], before.documents[:-1], strict=True))
    assert after.documents[-1] != before.documents[-1]


def test_a_document_that_moved_has_its_new_lines_and_is_else_the_same() -> None:
    before = parsed(BLOCK)
    after = parsed(f"# one line more\n{BLOCK}", before)
    for old, new, fresh in zip(
        before.documents,
        after.documents,
        parsed(f"# one line more\n{BLOCK}").documents,
        strict=True,
    ):
        assert new == old
        assert new.origin == fresh.origin
        if isinstance(new, Role) and isinstance(old, Role):
            assert new.conditions is old.conditions
    place = ("spec", "condition", "StringEqual", "jwt:ref")
    assert (
        after.documents[-1].origin.line_of(*place)
        == 1 + BLOCK.splitlines().index("      jwt:ref: [refs/heads/main]") + 1
    )


BLOCK = f"""
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: deploy}}
spec:
  statement:
    - {{sid: deploy, effect: Allow, action: ["Function:*"], resource: ["dev:*"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: deployer}}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:ref: [refs/heads/main]
"""


def test_two_documents_of_one_text_stay_two() -> None:
    twice = as_text(SET[-1], SET[-1])
    for found in (
        parsed(twice),
        parsed(twice, parsed(twice)),
        parsed(twice, parsed(as_text(*SET))),
    ):
        one, other = found.documents
        assert one is not other
        assert (one.origin.line, other.origin.line) == (1, 3)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(as_text(*SET).replace("iam.openfaas", "openfaas"), id="a warning"),
        pytest.param(BLOCK.replace("[deploy]", "&x [deploy]\n  token: *x"), id="an error"),
        pytest.param("apiVersion: v1\nkind: List\nitems:\n- a: 1\n", id="a list"),
    ],
)
def test_a_document_with_problems_is_read_each_time(text: str) -> None:
    before = parsed(text)
    assert parsed(f"\n{text}", before) == parsed(f"\n{text}")


def test_what_aliases_repeat_is_counted_each_time() -> None:
    text = BLOCK.replace("[deploy]", "&x [deploy]").replace("[refs/heads/main]", "*x")
    assert parsed(text).documents
    assert len(parsed(text).remembered) == 1
