"""
Hostile documents: they try to exhaust the broker, to run code, or to mean two things at once.

Each attack worked against some YAML or JSON loader. Here each is a problem with a line, found in
bounded time and memory.
"""

from __future__ import annotations

import json
import os
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from federation.cli.check import check
from federation.documents.assemble import assemble
from federation.documents.field_types import MAP_KEYS
from federation.documents.model import Role
from federation.documents.parse import Parsed, parse
from federation.documents.schema import OPERATORS
from federation.errors import DocumentsRefused, Severity
from federation.sources.files import FileSource
from tests.test_documents_load import ISSUER, POLICY, ROLE, role_text

SECONDS = 5.0
MIB = 1024 * 1024


def hostile(data: str | bytes, path: str = "hostile.yaml") -> Parsed:
    """Parse *data*, which must be refused within `SECONDS`."""
    raw = data.encode() if isinstance(data, str) else data
    start = time.process_time()
    parsed = parse(path, raw)
    assert time.process_time() - start < SECONDS
    assert any(problem.severity is Severity.ERROR for problem in parsed.problems)
    assert assemble([parsed]).catalog is None
    return parsed


def codes(parsed: Parsed) -> set[str]:
    return {problem.code for problem in parsed.problems}


def bomb(levels: int, each: int) -> str:
    """Return a few lines that expand to `each ** levels` values."""
    lines = ["a0: &a0 [" + "x, " * each + "]"]
    lines += [f"a{n}: &a{n} [{f'*a{n - 1}, ' * each}]" for n in range(1, levels)]
    return "\n".join(lines)


def test_aliases_cannot_blow_a_document_up() -> None:
    tracemalloc.start()
    try:
        assert codes(hostile(bomb(levels=30, each=10))) == {"D002"}
        assert tracemalloc.get_traced_memory()[1] < 10 * MIB
    finally:
        tracemalloc.stop()


def test_aliases_of_maps_cannot_blow_a_document_up() -> None:
    lines = ["a0: &a0 {x: y}"]
    lines += [f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, 45)]
    assert codes(hostile("\n".join(lines))) == {"D002"}


def test_aliases_cannot_blow_up_values_that_would_be_read() -> None:
    values = "jwt:a0: &v [" + "x, " * 1000 + "]"
    keys = "".join(f", jwt:a{n}: *v" for n in range(1, 1000))
    text = role_text(f"condition: {{StringEqual: &k {{{values}{keys}}}}}\n")
    assert codes(hostile(text)) == {"D002"}


def test_aliases_cannot_blow_up_a_file_document_by_document() -> None:
    keys = ", ".join(f"jwt:a{n}: *v" for n in range(40))
    condition = f"condition: {{StringEqual: {{jwt:a: &v [{'x, ' * 999}], {keys}}}}}\n"
    text = "---\n".join(role_text(condition) for _ in range(10))
    faults = {problem.message for problem in hostile(text).problems if problem.code == "D002"}
    assert faults == {"aliases repeat more than 200,000 values"}


def test_reading_a_file_of_many_small_bombs_stops_early() -> None:
    assert codes(hostile(f"---\n{bomb(6, 9)}\n" * 10_000)) == {"D002"}


def test_aliases_cannot_build_depth_beyond_the_limit() -> None:
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [[[[*a{n - 1}]]]]" for n in range(1, 40))]
    assert codes(hostile("\n".join(lines))) == {"D002"}


@pytest.mark.parametrize(("levels", "expected"), [(50, {"D004"}), (51, {"D002"})])
@pytest.mark.parametrize("repeated", ["&a [x]", "&a {x: y}", "&a [[x]]", "&a [&b [x], x]"])
def test_an_alias_counts_with_all_its_levels(
    levels: int, expected: set[str], repeated: str
) -> None:
    around = levels - (2 if "[[" in repeated or "&b" in repeated else 1)
    nested = f"[{repeated}, {'[' * (around - 1)}*a{']' * (around - 1)}]"
    assert codes(hostile(nested)) == expected


def test_an_alias_cannot_contain_itself() -> None:
    assert codes(hostile("&a [*a]")) == {"D002"}
    assert codes(hostile("&a {b: {c: *a}}")) == {"D002"}
    assert codes(hostile("&a {*a : b}")) == {"D002"}


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("[{a: ", "}]")],
)
@pytest.mark.parametrize("depth", [60, 100_000])
def test_deep_nesting_cannot_crash_the_reader(opening: str, closing: str, depth: int) -> None:
    assert codes(hostile(opening * depth + "x" + closing * depth)) == {"D002"}


def test_deep_nesting_by_indentation_cannot_crash_the_reader() -> None:
    assert codes(hostile("".join(" " * n + "a:\n" for n in range(2_000)))) == {"D002"}


@pytest.mark.parametrize("depth", [60, 1_000_000])
def test_deep_json_cannot_crash_the_reader(depth: int) -> None:
    assert codes(hostile("[" * depth + "]" * depth, "a.json")) == {"D002"}
    assert codes(hostile('{"a":' * depth, "a.json")) == {"D002"}


@pytest.mark.parametrize(
    "tag",
    [
        '!!python/object/apply:os.system ["touch /tmp/owned"]',
        "!!python/name:os.system",
        "!!python/object/new:type {args: [z, [], {}]}",
        "!!binary aGk=",
        "!!set {a, b}",
        "!!omap [a: b]",
        "!!timestamp 2024-01-01",
        "!<tag:yaml.org,2002:python/none> x",
        "!env SECRET",
        "!include /etc/passwd",
    ],
)
def test_no_tag_creates_an_object(tag: str) -> None:
    assert codes(hostile(f"a: {tag}\n")) == {"D002"}
    assert codes(hostile(role_text(f"condition: {{StringEqual: {{jwt:a: {tag}}}}}\n"))) == {"D002"}


def test_a_tag_directive_cannot_hide_a_tag() -> None:
    assert codes(hostile("%TAG ! tag:yaml.org,2002:python/\n---\n!name:os.system x\n")) == {"D002"}


@pytest.mark.parametrize("where", ["condition", "StringEqual", "jwt:repository_id"])
def test_the_second_of_two_equal_keys_cannot_replace_the_first(where: str) -> None:
    extra = {
        "condition": "  condition: {StringLike: {jwt:ref: ['*']}}\n",
        "StringEqual": "    StringEqual: {jwt:ref: [a]}\n",
        "jwt:repository_id": "      jwt:repository_id: [evil]\n",
    }[where]
    assert "D003" in codes(hostile(ROLE + extra))


def test_keys_that_differ_only_in_how_they_are_quoted_are_one_key() -> None:
    assert codes(hostile(ISSUER + '  "au\\x64": [evil]\n')) == {"D003"}


def test_a_merge_key_merges_nothing() -> None:
    text = "apiVersion: iam.openfaas.com/v1\nkind: Role\nmetadata: {name: r}\nspec:\n"
    text += "  policy: [p]\n  <<: {condition: {StringEqual: {jwt:a: [b]}}}\n"
    assert codes(hostile(text)) == {"D005", "D019"}


@pytest.mark.parametrize("name", ["ISS", "Iss", "iss ", "is\u0455", "iss\u200b"])
def test_a_field_that_looks_like_another_is_unknown(name: str) -> None:
    assert codes(hostile(ISSUER + f'  "{name}": https://evil.example\n')) == {"D005"}


@pytest.mark.parametrize("digits", ["\u0661\u0662", "\uff11\uff12"])
def test_digits_of_other_scripts_are_text(digits: str) -> None:
    (role,) = parse("a.yaml", role_text(f"principal: {{jwt:a: {digits}}}\n").encode()).documents
    assert isinstance(role, Role)
    assert role.conditions[0].values == (digits,)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfea\x00:\x00 \x00b\x00",
        b"a: \xed\xa0\x80",
        b"a: \xc0\xaf",
        b"\x00",
        b"a: \x1b[31m",
        b"a: b\xef\xbf\xbe",
        "a: \u2028b".encode() * 3,
    ],
    ids=["utf-16", "surrogate", "overlong", "null", "escape", "not a character", "separator"],
)
def test_bytes_that_are_not_plain_text_are_refused(data: bytes) -> None:
    assert codes(hostile(data)) <= {"D001", "D002", "D004"}


def test_a_problem_shows_nothing_that_a_terminal_would_act_on() -> None:
    text = ISSUER.replace("github}", r'"\e[2J\u202e\a"}').replace("aud", r'"\e]0;x"')
    for problem in hostile(text).problems:
        assert str(problem).isprintable()


def test_at_most_a_thousand_problems_of_a_document_are_reported() -> None:
    fields = "".join(f"  field{n}: x\n" for n in range(60_000))
    parsed = hostile(ISSUER + fields)
    assert len(parsed.problems) <= 1001
    assert codes(parsed) == {"D005", "D001"}


LONG = "k" * 900
HEAD = "apiVersion: iam.openfaas.com/v1\nkind: {kind}\nmetadata: {{name: r}}\nspec:\n"
AMPLIFIED = {
    "values under long keys": HEAD.format(kind="Role")
    + f"  policy: [p]\n  condition:\n    StringEqual:\n      jwt:a: &v [{'~, ' * 1000}]\n"
    + "".join(f"      jwt:{LONG}{n}: *v\n" for n in range(MAP_KEYS - 1)),
    "long keys under each operator": HEAD.format(kind="Role")
    + "  policy: [p]\n  condition:\n    StringEqual: &k\n"
    + "".join(f"      {LONG}{n}: a\n" for n in range(MAP_KEYS))
    + "".join(f"    {name}: *k\n" for name in sorted(OPERATORS.keys() - {"StringEqual"})),
    "unknown fields in each statement": HEAD.format(kind="Policy")
    + "  statement:\n  - &s\n"
    + "".join(f"    {LONG}{n}: a\n" for n in range(200))
    + "  - *s\n" * 480,
    "labels": HEAD.format(kind="Role").replace(
        "{name: r}", "{name: r, labels: {" + "".join(f"l{n}: 1, " for n in range(9000)) + "}}"
    ),
}


@pytest.mark.parametrize("text", AMPLIFIED.values(), ids=AMPLIFIED)
def test_aliases_cannot_multiply_errors(text: str) -> None:
    tracemalloc.start()
    try:
        parsed = hostile(text)
        assert tracemalloc.get_traced_memory()[1] < 80 * MIB
    finally:
        tracemalloc.stop()
    assert len(parsed.problems) == 1001
    assert "has very many errors; the rest is not listed" in parsed.problems[-1].message


def test_an_anchor_cannot_be_replaced_by_a_later_one() -> None:
    assert codes(hostile("a: &x 1\nb: &x 2\nc: *x\n")) == {"D002"}


def test_at_most_a_thousand_problems_of_a_file_are_reported() -> None:
    parsed = hostile("--- x\n" * 500_000)
    assert len(parsed.problems) <= 1001


def test_at_most_twenty_syntax_errors_of_a_file_are_reported() -> None:
    parsed = hostile("---\n{\n" * 500_000)
    assert len(parsed.problems) <= 21


@pytest.mark.parametrize(("each", "path"), [("x,", "a.yaml"), ("1,", "a.json")])
def test_a_flat_document_may_not_have_millions_of_values(each: str, path: str) -> None:
    assert codes(hostile("[" + each * 600_000 + "1]", path)) == {"D002"}


def test_a_number_of_any_length_costs_nothing() -> None:
    digits = "9" * 1_000_000
    assert codes(hostile(role_text(f"condition: {{StringEqual: {{jwt:a: {digits}}}}}\n"))) == {
        "D024"
    }
    assert codes(hostile(ISSUER + f"  tokenExpiry: {digits}h\n")) == {"D016"}


@pytest.mark.parametrize("value", ["1" + "_1" * 50_000, "1" + ":1" * 50_000, "0" * 99_999 + "x"])
def test_no_scalar_makes_its_expression_backtrack(value: str) -> None:
    hostile(role_text(f"condition: {{StringEqual: {{jwt:a: {value}}}}}\n"))


def test_a_certificate_of_any_length_costs_nothing() -> None:
    pem = "-----BEGIN CERTIFICATE----- " * 30_000
    assert codes(hostile(ISSUER + f'  caBundle: "{pem}"\n')) == {"D020"}


def test_wildcards_cannot_make_an_action() -> None:
    for action in ("Function*", "F*", "**", "Function:**", "*:*", "function:*", "Function:Lis?"):
        assert codes(hostile(POLICY.replace('"Function:List"', f'"{action}"'))) == {"D014"}


def test_a_resource_cannot_hold_more_than_two_halves() -> None:
    for resource in ("dev", "dev:", ":*", "dev:a:b", "dev/*", "dev:*\\n", "", "dev:?", "dev:a b"):
        found = codes(hostile(POLICY.replace('"dev:*"', f'"{resource}"')))
        assert found <= {"D015", "D007"}


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`?,~<= \n\t0179._", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    parsed = parse("a.yaml", text.encode())
    assert parsed.documents == ()
    assert all(problem.line <= text.count("\n") + 1 for problem in parsed.problems)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for path in ("a.yaml", "a.json"):
        assert parse(path, data).documents == ()


@given(st.data())
def test_a_set_with_a_piece_cut_out_is_read_or_refused(data: st.DataObject) -> None:
    whole = f"{ISSUER}---\n{POLICY}---\n{ROLE}"
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    parsed = parse("a.yaml", (whole[:start] + whole[end:]).encode())
    assert len(parsed.documents) + len(parsed.broken) <= parsed.found <= 3


# Links and names


SECRET = "kind: ghs_a-token-of-another-program\n"
WRITTEN = "{apiVersion: iam.openfaas.com/v1, kind: JwtIssuer, metadata: {name: x}, spec: {a: b}}\n"


def checked(*arguments: str) -> Result:
    return CliRunner().invoke(check, list(arguments))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, which is the current folder, beside a file and a folder of other programs."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token.yaml").write_text(SECRET)
    here = tmp_path / "checkout"
    (here / "documents").mkdir(parents=True)
    monkeypatch.chdir(here)
    return here


LINKS = {
    "a file in the folder": ("documents/a.yaml", "secrets/token.yaml", "documents"),
    "a folder in the folder": ("documents/a", "secrets", "documents"),
    "a file that a pattern of the shell named": ("a.yaml", "secrets/token.yaml", "a.yaml"),
    "a folder that a pattern of the shell named": ("a", "secrets", "a"),
    "a file below a link": ("a", "secrets", "a/token.yaml"),
}


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
@pytest.mark.parametrize(("link", "to", "path"), LINKS.values(), ids=LINKS)
def test_a_link_out_of_the_checkout_is_named_and_what_it_leads_to_is_not_printed(
    checkout: Path, link: str, to: str, path: str, form: str
) -> None:
    (checkout / link).symlink_to(checkout.parent / to)
    result = checked(path, "--format", form)
    assert result.exit_code == 1
    assert "D001" in result.output
    assert "is a link that leads out of the given folder" in result.output
    assert "ghs_" not in result.output


def test_a_named_link_by_an_absolute_path_leads_nowhere_else(checkout: Path) -> None:
    (checkout / "a.yaml").symlink_to(checkout.parent / "secrets" / "token.yaml")
    result = checked(str(checkout / "a.yaml"))
    assert result.exit_code == 1
    assert "ghs_" not in result.output


def test_a_running_broker_adopts_no_set_with_a_link_out_of_its_folder(checkout: Path) -> None:
    (checkout / "documents" / "set.yaml").write_text(f"{ISSUER}---\n{POLICY}---\n{ROLE}")
    FileSource([checkout / "documents"])
    (checkout / "documents" / "a.yaml").symlink_to(checkout.parent / "secrets" / "token.yaml")
    with pytest.raises(DocumentsRefused) as caught:
        FileSource([checkout / "documents"])
    assert "ghs_" not in str(caught.value)


def test_a_file_that_is_swapped_for_a_link_before_it_is_read_is_not_read(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = checkout / "documents" / "a.yaml"
    path.write_text(WRITTEN)
    opened = os.open

    def swap(*arguments: Any, **more: Any) -> int:
        path.unlink()
        path.symlink_to(checkout.parent / "secrets" / "token.yaml")
        monkeypatch.setattr(os, "open", opened)
        return opened(*arguments, **more)

    monkeypatch.setattr(os, "open", swap)
    result = checked("documents")
    assert result.exit_code == 1
    assert "ghs_" not in result.output


NAMES = (
    "::stop-commands::x.yaml",
    "  ::add-mask::x.yaml",
    "\t::error::x.yaml",
    "a\n::stop-commands::x.yaml",
    "a\r::stop-commands::x.yaml",
    "a\u2028::stop-commands::x.yaml",
    "##[add-mask]x.yaml",
    "a ##[stop-commands]x.yaml",
    "##vso[task.setvariable variable=PATH]x.yaml",
    "a\x1b[31m.yaml",
    "\udcff.yaml",
)


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_the_name_of_a_file_is_no_command_to_a_runner_or_terminal(
    checkout: Path, name: str, form: str
) -> None:
    (checkout / name).write_text(WRITTEN)
    result = checked(name, "--format", form)
    assert result.exit_code == 1, result.output
    assert "D005" in result.output
    for line in re.split("[\n\r\u2028\u2029]", result.output):
        assert re.match(r"::error file=", line) or not line.lstrip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line
        assert line.isprintable()
    if form in {"json", "sarif"}:
        json.loads(result.output)


def test_a_name_that_was_written_differently_still_leads_to_the_file(checkout: Path) -> None:
    (checkout / "::stop-commands::x.yaml").write_text(WRITTEN)
    place = checked("::stop-commands::x.yaml").output.partition(":1: error")[0]
    assert Path(place).read_text() == WRITTEN
