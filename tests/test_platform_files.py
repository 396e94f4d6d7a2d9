"""Files and forms of Kustomize, Helm, kubectl and people beside documents work, or are named."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from federation.cli import main
from federation.config import Settings
from federation.documents.assemble import Assembled
from federation.documents.parse import Parsed, parse
from federation.documents.platforms import owner_of
from federation.errors import Severity
from federation.sources.files import contents, load

ISSUER, POLICY, ROLE = list(
    yaml.safe_load_all("""
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {name: github}
spec: {iss: "https://token.actions.githubusercontent.com", aud: ["https://gateway.example.com"]}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {name: deploy}
spec:
  statement:
    - {sid: list, effect: Allow, action: ["Function:List"], resource: ["dev:*"]}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {name: deployer}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: https://token.actions.githubusercontent.com
      jwt:repository_owner_id: ["13420041"]
      jwt:repository_id: ["412890077"]
      jwt:ref: [refs/heads/main]
""")
)
ALL = [ISSUER, POLICY, ROLE]
KUSTOMIZATION = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [documents.yaml]
patches:
  - target: {group: iam.openfaas.com, kind: Role}
    patch: |-
      kind: Role
      apiVersion: iam.openfaas.com/v1
"""


def folder(tmp_path: Path, **others: str) -> Path:
    (tmp_path / "documents.yaml").write_text(yaml.safe_dump_all(ALL), "utf-8")
    for name, text in others.items():
        (tmp_path / name.replace("__", ".")).write_text(text, "utf-8")
    return tmp_path


def errors(found: Parsed | Assembled) -> list[str]:
    return [str(problem) for problem in found.problems if problem.severity is Severity.ERROR]


# Files beside documents


def test_a_kustomization_beside_documents_is_passed_over_and_named(tmp_path: Path) -> None:
    found = load([folder(tmp_path, kustomization__yaml=KUSTOMIZATION)])
    assert not found.problems
    assert found.catalog
    assert found.documents == 3
    (told,) = found.passed_over
    assert told == f"{tmp_path}/kustomization.yaml is a file of Kustomize; passed over"


@pytest.mark.parametrize(
    "name", ["Chart.yaml", "values.yaml", "stack.yml", "package.json", "values.schema.json"]
)
def test_files_of_other_programs_are_passed_over(tmp_path: Path, name: str) -> None:
    (folder(tmp_path) / name).write_text('{"name": "x", "version": "1.0"}', "utf-8")
    found = load([tmp_path])
    assert not found.problems
    assert len(found.passed_over) == 1


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps(ROLE), id="a document of ours"),
        pytest.param(json.dumps([POLICY]), id="a list of ours"),
        pytest.param(json.dumps({**POLICY, "apiVersion": "iam.openfaas.com/v2"}), id="a version"),
        pytest.param(json.dumps({**POLICY, "apiVersion": "v1"}), id="only the kind is ours"),
        pytest.param("replicas: 1\n---\n" + yaml.safe_dump(POLICY), id="the second one is ours"),
        pytest.param("spec: {statement: []}", id="no head at all"),
        pytest.param("{{ if .x }}\n", id="a template"),
        pytest.param("a: [", id="not YAML"),
        pytest.param("a: !secret b", id="a tag"),
    ],
)
def test_a_neighbour_that_may_hold_a_deny_is_never_passed_over(tmp_path: Path, text: str) -> None:
    found = load([folder(tmp_path, values__yaml=text)])
    assert not found.passed_over
    assert errors(found)


def test_a_file_with_another_name_is_no_neighbour(tmp_path: Path) -> None:
    found = load([folder(tmp_path, kustomisation__yaml=KUSTOMIZATION)])
    assert "D004" in "".join(errors(found))
    assert owner_of("kustomisation.yaml") == ""


def test_a_neighbour_that_is_named_by_itself_is_read(tmp_path: Path) -> None:
    folder(tmp_path, kustomization__yaml=KUSTOMIZATION)
    found = load([tmp_path / "kustomization.yaml"])
    assert "D004" in "".join(errors(found))


def test_convert_passes_the_same_files_over(tmp_path: Path) -> None:
    files, problems = contents([folder(tmp_path, kustomization__yaml=KUSTOMIZATION)])
    assert [Path(path).name for path, _ in files] == ["documents.yaml"]
    assert not problems


def test_check_names_what_it_passed_over(tmp_path: Path) -> None:
    place = str(folder(tmp_path, kustomization__yaml=KUSTOMIZATION))
    told = CliRunner().invoke(main, ["check", place])
    assert told.exit_code == 0
    assert "note: " in told.output
    assert "a file of Kustomize; passed over" in told.output
    machine = json.loads(CliRunner().invoke(main, ["check", place, "--format", "json"]).output)
    assert len(machine["passed_over"]) == 1


# Lists


def test_lists_of_documents_are_taken_apart_however_they_are_written() -> None:
    of_kind = {"apiVersion": "iam.openfaas.com/v1", "kind": "RoleList", "metadata": {}}
    listed = {"apiVersion": "v1", "kind": "List"}
    for value in (
        ALL,
        {**listed, "items": ALL},
        {**listed, "metadata": {"resourceVersion": ""}, "items": ALL},
        [{**listed, "items": [ISSUER, POLICY]}, ROLE],
        {**listed, "items": [{**listed, "items": ALL}]},
        [ISSUER, POLICY, {**of_kind, "items": [ROLE]}],
    ):
        for path, text in (("a.json", json.dumps(value)), ("a.yaml", yaml.safe_dump(value))):
            parsed = parse(path, text.encode())
            assert not errors(parsed), text
            assert [type(one).__name__ for one in parsed.documents] == [
                "JwtIssuer",
                "Policy",
                "Role",
            ]


def test_a_mistake_within_a_list_has_its_own_line_and_place() -> None:
    text = (
        '[\n {"apiVersion": "iam.openfaas.com/v1", "kind": "Role",\n "kind": "Role",\n "spc": 1}\n]'
    )
    found = parse("a.json", text.encode()).problems
    assert {(problem.line, problem.code, problem.field) for problem in found} >= {
        (3, "D003", "kind"),
        (4, "D005", "spc"),
    }


@pytest.mark.parametrize("text", ["[]", '["a"]', "[[]]", "[1, 2]"])
def test_a_list_of_something_else_is_an_error(text: str) -> None:
    assert errors(parse("a.json", text.encode()))


def test_deep_lists_of_lists_end_at_the_limit() -> None:
    assert "nested" in errors(parse("a.json", b"[" * 5000 + b"]" * 5000))[0]


def test_what_kubectl_get_writes_is_read_with_its_status() -> None:
    dumped = {
        **ROLE,
        "metadata": {
            "name": "deployer",
            "namespace": "openfaas",
            "uid": "8f0c",
            "resourceVersion": "12",
            "generation": 2,
            "creationTimestamp": "2026-11-01T00:00:00Z",
            "managedFields": [{"manager": "kubectl"}],
        },
        "status": {"observedGeneration": 2, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    for text in (
        yaml.safe_dump(dumped),
        yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [dumped]}),
    ):
        parsed = parse("a.yaml", text.encode())
        assert not parsed.problems
        assert len(parsed.documents) == 1


# Templates


@pytest.mark.parametrize(
    ("text", "line", "quoted"),
    [
        pytest.param("{{- if .Values.x }}\na: b\n{{- end }}\n", 1, "{{- if .Values.x }}", id="if"),
        pytest.param("a:\n  b: {{ .Values.b }}-c\n", 2, "{{ .Values.b }}", id="a value"),
        pytest.param(
            "a: b\nc:\n  {{ toYaml .Values.c | indent 2 }}\n", 3, "{{ toYaml", id="a block"
        ),
        pytest.param(
            'a: b\nl:\n{{ include "x" . | nindent 4 }}\nspec: 1\n', 3, "{{ include", id="include"
        ),
        pytest.param("a: b\n---\nc: {{ .d }}\n", 3, "{{ .d }}", id="the second document"),
    ],
)
def test_a_template_that_was_not_rendered_is_named_with_its_line(
    text: str, line: int, quoted: str
) -> None:
    problem = parse("a.yaml", text.encode()).problems[-1]
    assert problem.line == line
    assert quoted in problem.message.replace("\\", "")
    assert "was not rendered" in problem.message
    assert "helm template" in problem.hint


def test_a_mistake_far_from_a_template_is_told_as_it_is() -> None:
    text = 'a: "{{ x }}"\n' + "b: c\n" * 9 + "d: [\n"
    assert "template" not in parse("a.yaml", text.encode()).problems[0].message
    assert "template" not in parse("a.yaml", b'a: "{{ x }}"\n---\nd: [\n').problems[-1].message


@pytest.mark.parametrize(
    ("name", "hint"),
    [("{{ .Release.Name }}", "render it first"), ("${NAME}", "fill the placeholder")],
)
def test_a_wrong_value_that_is_a_template_gets_advice_about_templates(name: str, hint: str) -> None:
    wrong = {**ROLE, "metadata": {"name": name}}
    (problem,) = parse("a.yaml", yaml.safe_dump(wrong).encode()).problems
    assert hint in problem.hint


def test_many_open_braces_and_repeated_keys_take_no_long_time() -> None:
    hostile = json.dumps({**ROLE, "metadata": {"name": "${" * 1_000_000}})
    repeated = "[" + ",".join(['{"kind": 1, "kind": 1}'] * 20_000) + "]"
    began = time.process_time()
    parse("a.json", hostile.encode())
    parse("a.json", repeated.encode())
    parse("a.yaml", b"a: " + b"{{" * 1_000_000)
    assert time.process_time() - began < 20


# Commas


def changed(kind: dict[str, object], old: str, new: str) -> str:
    return json.dumps(kind).replace(old, new)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        pytest.param(
            changed(POLICY, '"Function:List"', '"Function:List, Function:Get"'),
            '["Function:List", "Function:Get"]',
            id="actions",
        ),
        pytest.param(
            changed(POLICY, "dev:*", "dev:a, dev:b"), '["dev:a", "dev:b"]', id="resources"
        ),
        pytest.param(
            changed(ROLE, '["deploy"]', '"deploy, see"'), '["deploy", "see"]', id="not a list"
        ),
    ],
)
def test_values_with_commas_in_one_text_are_written_out_in_the_hint(text: str, hint: str) -> None:
    (problem,) = parse("a.json", text.encode()).problems
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"refs/heads/main"', '"refs/heads/main, refs/heads/dev"', "W108"),
        ('"412890077"', '"412890077,412890078"', "W108"),
        ('["deploy"]', '["deploy, see"]', "D011"),
        ('"https://gateway.example.com"', '"https://a.example, https://b.example"', "W118"),
    ],
)
def test_values_with_commas_that_never_match_are_told(
    tmp_path: Path, old: str, new: str, code: str
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ALL).replace(old, new), "utf-8")
    told = [p for p in load([tmp_path]).problems if p.code == code]
    assert "write each as a value of its own: [" in told[0].hint


def test_settings_take_lists_with_a_comma_and_a_space() -> None:
    settings = Settings(
        kubernetes_namespace="openfaas",
        trusted_proxies="10.0.0.0/8, fd00::/8",
        callback_hosts="a.example , b.example:8080",
        audit_verbs="PUT, POST",
    )
    assert settings.trusted_proxies == "10.0.0.0/8,fd00::/8"
    assert settings.callback_hosts == "a.example,b.example:8080"
    assert settings.audit_verbs == "PUT,POST"


@pytest.mark.parametrize(
    ("given", "told"),
    [("10.0.0.1/8", "write 10.0.0.0/8 for the network"), ("proxy.example", "is not a network")],
)
def test_a_network_that_is_none_is_told_in_our_words(given: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(trusted_proxies=given)


# Fields in another place


def test_a_field_of_another_kind_is_sent_home() -> None:
    wrong = {**ROLE, "metadata": {"name": "deployer", "action": ["Function:List"]}}
    (problem,) = parse("a.json", json.dumps(wrong).encode()).problems
    assert problem.hint == "it belongs under spec.statement of a Policy"
