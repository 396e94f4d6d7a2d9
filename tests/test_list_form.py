"""Documents in list form say the same, and an API server would take them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from federation.documents.kubernetes.list_form import rewritten, text
from federation.documents.parse import parse
from tests.harness import generators

ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "examples").glob("*.yaml")), ROOT / "federation/demo/documents.yaml"]

HEAD = "apiVersion: {version}\nkind: Role\nmetadata: {{name: a{more}}}\nspec: {{policy: [p], {spec}}}\n"


def role(spec: str, version: str = "iam.openfaas.com/v1", more: str = "") -> bytes:
    return HEAD.format(version=version, spec=spec, more=more).encode()


def converted(data: bytes, path: str = "a.yaml") -> str:
    documents, errors = rewritten(path, data)
    assert not errors
    return text(documents)


def spec_of(data: bytes) -> Any:
    return yaml.safe_load(converted(data))["spec"]


def shown(data: bytes) -> str:
    """Everything that the documents in *data* mean."""
    return repr(parse("a.yaml", data).documents)


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_a_file_says_the_same_and_converting_twice_is_converting_once(path: Path) -> None:
    data = path.read_bytes()
    once = converted(data)
    assert shown(once.encode()) == shown(data)
    assert converted(once.encode()) == once


@pytest.mark.parametrize("seed", range(200))
def test_generated_documents_say_the_same(seed: int) -> None:
    written = yaml.safe_dump_all(generators.documents(Random(seed))).encode()  # noqa: S311  no secret
    once = converted(written)
    assert shown(once.encode()) == shown(written)
    assert converted(once.encode()) == once


@pytest.mark.parametrize(
    ("value", "listed"),
    [
        ("acme", ["acme"]),
        ("[acme, beta]", ["acme", "beta"]),
        ("412890077", ["412890077"]),
        ("[1, true, FALSE, '1']", ["1", "true", "false", "1"]),
        ("'null'", ["null"]),
        ("'yes'", ["yes"]),
        ("'1e3'", ["1e3"]),
        ("'0o14'", ["0o14"]),
        ("'y'", ["y"]),
        ("'2026-01-01'", ["2026-01-01"]),
        ("''", [""]),
        ('"a\\nb"', ["a\nb"]),
        ('"a\\u2028b \\u00e9"', ["a\u2028b \u00e9"]),
        ("'a: b # c'", ["a: b # c"]),
    ],
)
def test_each_value_becomes_a_list_of_texts(value: str, listed: list[str]) -> None:
    data = role(f"principal: {{jwt:a: {value}}}")
    assert spec_of(data)["principal"] == {"jwt:a": listed}
    assert shown(converted(data).encode()) == shown(data)


@pytest.mark.parametrize("value", ["y", "1e3", "0o14", "012", "1_000", "1:30", "no", "~"])
def test_a_text_that_yaml_could_mistake_is_quoted(value: str) -> None:
    assert f'- "{value}"' in converted(role(f"principal: {{jwt:a: '{value}'}}"))


def test_the_older_version_becomes_the_present_one() -> None:
    made = yaml.safe_load(converted(role("principal: {jwt:a: b}", "openfaas.com/v1")))
    assert made["apiVersion"] == "iam.openfaas.com/v1"


def test_what_the_api_server_writes_is_left_behind() -> None:
    more = (
        ", namespace: openfaas, labels: {a: b}, uid: x, generation: 3, resourceVersion: '7'"
        ", annotations: {kubectl.kubernetes.io/last-applied-configuration: x, c: d}"
    )
    made = yaml.safe_load(converted(role("principal: {jwt:a: b}", more=more)))
    assert made["metadata"] == {
        "name": "a",
        "namespace": "openfaas",
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
    }


def test_a_file_with_an_error_is_not_converted() -> None:
    documents, errors = rewritten("a.yaml", role("conditions: {}, principal: {jwt:a: b}"))
    assert not documents
    assert [problem.code for problem in errors] == ["D005"]


def run(*words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "federation", "convert", *words]
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)  # noqa: S603  ours


def test_the_command_reads_files_folders_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_bytes(role("principal: {jwt:a: b}"))
    expected = converted(role("principal: {jwt:a: b}")).encode()
    assert run(str(tmp_path)).stdout == expected
    assert run(str(tmp_path / "one.yaml")).stdout == expected
    assert run("-", given=expected).stdout == expected


@pytest.mark.parametrize("given", [b"", b"# a comment alone\n"])
def test_no_document_to_convert_is_no_success(tmp_path: Path, given: bytes) -> None:
    for done in (run(str(tmp_path)), run("-", given=given)):
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"no documents were found; name a file or directory" in done.stderr


def test_the_command_prints_errors_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_bytes(role("principal: {jwt:a: b}"))
    (tmp_path / "bad.yaml").write_bytes(role("principle: {jwt:a: b}"))
    done = run(str(tmp_path))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"bad.yaml:4: error[D005]" in done.stderr
