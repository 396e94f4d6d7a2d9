"""A real API server accepts and refuses objects by our CustomResourceDefinitions."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from federation.documents.assemble import assemble
from federation.documents.codes import Code
from federation.documents.field_types import LIST_VALUES, MAP_KEYS, VALUE_CHARS
from federation.documents.kubernetes.crds import crds
from federation.documents.kubernetes.list_form import rewritten
from federation.documents.parse import parse
from federation.documents.schema import OPERATORS, PLURALS
from federation.documents.values import url_fault
from federation.errors import Severity
from federation.jose.jwk import PRIVATE_MEMBERS
from federation.policy.conditions import PATTERN_CHARS
from federation.providers.table import PROFILES
from tests.harness import generators
from tests.harness.kube import Cluster, CommandFailed, cluster_running
from tests.harness.process import ROOT
from tests.test_documents_load import BAD, EC, RSA

pytestmark = pytest.mark.e2e

FILES = [*sorted((ROOT / "examples").glob("*.yaml")), ROOT / "federation/demo/documents.yaml"]
Plain = dict[str, Any]

GOOD: Mapping[str, Plain] = {
    "JwtIssuer": {"iss": "https://idp.example.com", "aud": ["https://gateway.example.com"]},
    "Policy": {
        "statement": [
            {"sid": "a", "effect": "Allow", "action": ["Function:List"], "resource": ["dev:*"]}
        ]
    },
    "Role": {
        "policy": ["p"],
        "condition": {"StringEqual": {"jwt:iss": ["https://idp.example.com"], "jwt:sub": ["a"]}},
    },
}


def document(kind: str, spec: Plain, name: str = "a") -> Plain:
    return {
        "apiVersion": "iam.openfaas.com/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def good(kind: str, /, *, name: str = "a", **changes: Any) -> Plain:
    """A good object with *changes* in its spec; a change to None takes the field away."""
    spec = GOOD[kind] | changes
    return document(
        kind, {field: value for field, value in spec.items() if value is not None}, name
    )


def statement(**changes: Any) -> Plain:
    """A Policy with one statement that has *changes*."""
    return good("Policy", statement=[GOOD["Policy"]["statement"][0] | changes])


def answer(cluster: Cluster, given: Plain, query: str = "?dryRun=All") -> str:
    """Why the API server refuses an object that a client posts, empty if it takes it."""
    place = f"/apis/iam.openfaas.com/v1/namespaces/default/{PLURALS[given['kind']]}{query}"
    answered = cluster.request("POST", place, given)
    return "" if answered.status_code == 201 else answered.json()["message"] or "refused"


def refused_in_a_file(given: Plain) -> bool:
    """True if a file with the object alone has an error of its form."""
    problems = assemble([parse("a.json", json.dumps(given).encode())], "").problems
    errors = {problem.code for problem in problems if problem.severity is Severity.ERROR}
    return any(code.startswith("D") for code in errors - {Code.POLICY_MISSING})


def in_list_form(given: Plain) -> Plain:
    """The object as `federation convert` has it, empty if it has errors."""
    documents, _ = rewritten("a.json", json.dumps(given).encode())
    made: Plain = json.loads(json.dumps(documents[0])) if documents else {}
    return made


# What is good can be applied


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_an_example_can_be_applied_in_list_form(cluster: Cluster, path: Path) -> None:
    documents, errors = rewritten(str(path), path.read_bytes())
    assert not errors
    for one in documents:
        assert answer(cluster, dict(one)) == ""


def test_the_demos_documents_can_be_applied_as_they_are(cluster: Cluster) -> None:
    path = ROOT / "federation/demo/documents.yaml"
    cluster.kubectl("apply", "--dry-run=server", "-f", str(path))


def test_every_member_of_a_pinned_key_is_a_field_after_kubectl_applied_the_definitions(
    cluster: Cluster,
) -> None:
    crd = cluster.get("crd", "jwtissuers.iam.openfaas.com")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jwks = schema["properties"]["spec"]["properties"]["jwks"]
    fields = jwks["properties"]["keys"]["items"]["properties"]
    assert {"n", "e", "x", "y"} <= fields.keys()
    assert not {"true", "false"} & fields.keys()
    wrong = good("JwtIssuer", jwks={"keys": [{**RSA, "n": "not base64url!"}]})
    assert "spec.jwks.keys[0].n" in answer(cluster, wrong)


ACCEPTED = [
    *(good("JwtIssuer", provider=name) for name in PROFILES),
    good("JwtIssuer", iss="https://kubernetes.default.svc", provider="kubernetes"),
    good("JwtIssuer", bearerTokenFile="/var/run/secrets/tokens/issuer", issInternal="https://a"),
    good("JwtIssuer", aud=None, clients=["faas-cli"]),
    good("JwtIssuer", clients=["faas-cli"], authorizedParties=["a"], subjectTokenUse="once"),
    good("JwtIssuer", jwks={"keys": [RSA, {**EC, "x5c": ["a"], "kid": None, "use": ""}]}),
    good("JwtIssuer", jwksUri="https://a.example:8443/keys?a=b"),
    good("JwtIssuer", aud=["x" * VALUE_CHARS] * 300),
    good("JwtIssuer", aud=["x"] * LIST_VALUES),
    good("JwtIssuer", clients=[str(n) for n in range(LIST_VALUES)]),
    *(good("JwtIssuer", tokenExpiry=text) for text in ("1m", "24h", "90s", "1h30m", "1.5h")),
    *(good("JwtIssuer", tokenExpiry=text) for text in ("60000ms", ".5h", "1.h", "24h0.9us")),
    *(good("JwtIssuer", tokenExpiry=text) for text in ("60000000\u00b5s", "60000000\u03bcs")),
    good("Role", condition=None, principal={"jwt:sub": ["a"]}),
    good("Role", principal={"jwt:/kubernetes.io/serviceaccount/name": ["a"]}),
    good("Role", condition={name: {"jwt:sub": ["a"]} for name in OPERATORS}),
    good("Role", principal={f"jwt:{n}": [""] for n in range(MAP_KEYS)}),
    good("Role", condition={"StringEqual": {"jwt:sub": ["x" * VALUE_CHARS] * 200}}),
    good("Role", condition={"StringLike": {"jwt:sub": ["x" * PATTERN_CHARS] * LIST_VALUES}}),
    good("Role", policy=["p"] * LIST_VALUES),
    *(good("Role", effect=effect) for effect in ("Admit", "Shadow")),
    statement(effect="Deny", condition=GOOD["Role"]["condition"]),
    statement(action=["*", "Function:Read", "Secret:Admin", "System:Info"]),
    statement(resource=["*", "dev:*", "team-*:*", "A_b.c:D"]),
    good("Policy", statement=[GOOD["Policy"]["statement"][0] | {"sid": str(n)} for n in range(LIST_VALUES)]),
]  # fmt: skip


@pytest.mark.parametrize("given", ACCEPTED, ids=range(len(ACCEPTED)))
def test_what_a_file_may_hold_can_be_applied(cluster: Cluster, given: Plain) -> None:
    assert not refused_in_a_file(given)
    assert answer(cluster, given) == ""


# What a single object shows to be wrong is refused

_TWO = [GOOD["Policy"]["statement"][0]] * 2
REFUSED: list[tuple[str, Plain]] = [
    ("D006", good("JwtIssuer", aud=None)),
    ("D007", good("JwtIssuer", clients=["a"], aud=["a"])),
    ("D007", good("JwtIssuer", clients=["a"], aud=None, authorizedParties=["a"])),
    ("D007", good("Role", condition={"StringEqual": {"jwt:iss": ["a"], "jwt:sub": None}})),
    ("D007", good("Role", condition={"StringEqual": {"jwt:iss": ["a"]}, "StringLike": None})),
    ("D007", good("Role", principal={"jwt:sub": None, "jwt:iss": ["a"]})),
    ("D007", statement(condition={"StringEqual": {"jwt:iss": ["a"], "jwt:sub": None}})),
    ("D012", good("Role", condition={"StringEquel": {"jwt:iss": ["a"]}})),
    ("D012", good("Role", condition={"ForAllValues:StringEqual": {"jwt:iss": ["a"]}})),
    ("D012", statement(condition={"stringEqual": {"jwt:iss": ["a"]}})),
    ("D013", good("Role", condition={"StringEqual": {"iss": ["a"]}})),
    ("D013", good("Role", principal={"jwt:": ["a"]})),
    ("D013", statement(condition={"StringEqual": {"sub": ["a"]}})),
    *(("D016", good("JwtIssuer", tokenExpiry=text)) for text in ("59s", "24h1us", "15", "-15m")),
    *(("D016", good("Role", tokenExpiry=text)) for text in ("59.9999s", "1d", "1h 30m", " 1h")),
    ("D017", good("JwtIssuer", iss="http://idp.example.com")),
    ("D017", good("JwtIssuer", issInternal="https://idp.example.com?a=b")),
    ("D017", good("JwtIssuer", jwksUri="https://idp.example.com/#a")),
    ("D019", good("Role", condition=None)),
    *(
        ("D020", good("JwtIssuer", jwks={"keys": [{**RSA, name: "AQAB"}]}))
        for name in sorted(PRIVATE_MEMBERS - {"oth"})
    ),
    ("D020", good("JwtIssuer", caBundle="-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----")),
    ("D022", good("JwtIssuer", iss="https://token.actions.githubusercontent.com", provider="generic")),
    ("D022", good("JwtIssuer", iss="https://gitlab.com", provider="github")),
    ("D023", good("JwtIssuer", jwks={"keys": [RSA]}, jwksUri="https://a")),
    ("D023", good("JwtIssuer", jwks={"keys": [RSA]}, issInternal="https://a")),
    ("D023", good("JwtIssuer", jwks={"keys": [RSA]}, bearerTokenFile="/a")),
    ("D025", good("JwtIssuer", iss="https://ghes.example.com/_services/token")),
    ("D025", good("JwtIssuer", iss="https://forge.example.com/api/actions")),
    ("D028", statement(action=["Function:List", "Documents:Read"], resource=["dev:*"])),
    ("D028", statement(action=["Audit:Read"], effect="Deny", resource=["*:a", "dev:*"])),
    # Refused by the schema, which has no codes
    ("Required", good("JwtIssuer", iss=None)),
    ("Required", good("Role", policy=None)),
    ("Unsupported", statement(effect="Permit")),
    ("Unsupported", statement(action=["Function:Lst"])),
    ("Unsupported", good("JwtIssuer", provider="githup")),
    ("Unsupported", good("Role", effect="shadow")),
    ("should match", statement(resource=["dev"])),
    ("should match", good("JwtIssuer", bearerTokenFile="token")),
    ("at least 1", good("Role", policy=[])),
    ("at least 1", good("Role", condition={"StringEqual": {"jwt:iss": []}})),
    ("must be of type string", good("JwtIssuer", jwks={"keys": [{**RSA, "oth": []}]})),
    ("Duplicate", good("Policy", statement=_TWO)),
    ("Too long", good("Role", condition={"StringEqual": {"jwt:id": ["x" * (VALUE_CHARS + 1)]}})),
    ("Too many", good("Role", policy=["p"] * (LIST_VALUES + 1))),
    ("Too many", good("Role", principal={f"jwt:{n}": [""] for n in range(MAP_KEYS + 1)})),
]  # fmt: skip


@pytest.mark.parametrize(
    ("why", "given"), REFUSED, ids=[f"{n}-{why}" for n, (why, _) in enumerate(REFUSED)]
)
def test_what_is_wrong_is_refused(cluster: Cluster, why: str, given: Plain) -> None:
    assert why in answer(cluster, given)
    assert refused_in_a_file(given)


@pytest.mark.parametrize("value", [[1], "1", True, [True, "a"]], ids=str)
def test_what_is_not_a_list_of_texts_can_be_applied_once_converted(
    cluster: Cluster, value: object
) -> None:
    given = good("Role", condition={"StringEqual": {"jwt:id": value}})
    assert "must be of type" in answer(cluster, given)
    assert answer(cluster, in_list_form(given)) == ""


def test_each_rule_refuses_something() -> None:
    """A rule that never refuses would be noticed by nobody."""
    written = {message[:4] for one in crds() for message in _messages(one)}
    assert written == {why for why, _ in REFUSED if why[1:].isdigit()}


def _messages(within: Any) -> Iterator[str]:
    if isinstance(within, dict):
        yield from (rule["message"] for rule in within.get("x-kubernetes-validations", ()))
        within = list(within.values())
    for inner in within if isinstance(within, list) else ():
        yield from _messages(inner)


# The schema agrees with the models

URLS = [
    *("https://a", "https://a/", "https://a:1", "https://a:65535/b", "https://A.b-c_d.e./f"),
    *("https://a%41/", "https://a/%zz", "https://a/b;c=d", "https://a//b", "https://1.2.3.4"),
    *("https://[::1]", "https://[fe80::1]:8443/a", "https://[::1", "https://::1", "https://a:b"),
    *("http://localhost", "http://LOCALHOST:80/a", "http://127.0.0.1", "http://127.9.9.9:1/a"),
    *("http://[::1]", "http://[0:0:0:0:0:0:0:1]:80", "http://a", "http://localhost.example"),
    *("http://127.0.0.1.example", "http://[::2]", "http://128.0.0.1", "HTTPS://a", "https:/a"),
    *("ftp://a", "https://", "https://?", "https://a?b", "https://a#b", "https://a@b", "a"),
    *("https://a:b@c/", "https://a/@b", "https://a\\b", "https://a b", "https://\u00e9", " https://a"),
    *("https://a\n", "https://-a", "https://a-", "https://a..b", "https://a:", "https://.a", "http://"),
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_refused_exactly_where_the_broker_refuses_it(cluster: Cluster, url: str) -> None:
    told = answer(cluster, good("JwtIssuer", iss=url))
    assert bool(told) == bool(url_fault(url))
    assert not told or "D017" in told


LEFT_TO_THE_BROKER = {
    *("duplicate key", "duplicate key far down", "duplicate key that is not read"),
    *("unknown field", "unknown top field", "merge key", "unknown metadata"),  # kept and told, D005
    *("bad pointer", "long pattern"),  # what a rule reads has no length, or other lengths
    *("one name twice", "one iss twice", "missing policy"),  # need other objects
}


def _bad() -> Iterator[tuple[str, Plain]]:
    for name, code, text in BAD:
        if code not in {"D002", "D004"}:
            yield name, list(yaml.safe_load_all(text))[-1]


OF_FILES = dict(_bad())


@pytest.mark.parametrize("name", OF_FILES)
def test_what_the_parser_refuses_is_refused(cluster: Cluster, name: str) -> None:
    assert bool(answer(cluster, OF_FILES[name])) == (name not in LEFT_TO_THE_BROKER)


ODD: list[Any] = [
    *(None, "", " ", "a", "*", 0, 1.5, True, [], {}, [""], ["a"], [None], [[]], {"a": "b"}),
    *({"jwt:a": ["b"]}, {"jwt:a": []}, {"jwt:a": None}, "a:b", "1h", "https://a", "Allow", "a\nb"),
    *("x" * 1025, ["*"], ["a:*"], "a-*:*", {"StringEqual": {"jwt:a": ["b"]}}, "\ufeff", "\ud7ff"),
]


def test_whatever_a_file_may_hold_can_be_applied_in_list_form(cluster: Cluster) -> None:
    """Changes to generated documents: the API server may refuse less than the broker, never more."""
    rng = Random(13)  # noqa: S311  no secret
    taken = 0
    for _ in range(700):
        given = in_list_form(rng.choice(generators.documents(rng)))
        for _ in range(rng.choice([0, 1, 1, 2])):
            _change(given["spec"], rng)
        if made := in_list_form(given):
            assert answer(cluster, made) == "", made
            taken += 1
    assert 200 < taken < 500


def _change(value: Any, rng: Random) -> None:
    """Change something somewhere in a map or a list: replace, remove, or add."""
    steps = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not steps:
        return
    step = rng.choice(steps)
    if isinstance(value[step], dict | list) and value[step] and rng.random() < 0.8:
        _change(value[step], rng)
    elif isinstance(value, dict) and rng.random() < 0.3:
        del value[step]
    else:
        value[step] = deepcopy(rng.choice(ODD))  # else a later change would change ODD itself


# What clients do that do not ask the server to be strict


def stored(cluster: Cluster, given: Plain) -> Plain:
    """What the API server keeps of an object."""
    place = f"/apis/iam.openfaas.com/v1/namespaces/default/{PLURALS[given['kind']]}?dryRun=All"
    answered = cluster.request("POST", place, given)
    assert answered.status_code == 201, answered.text
    kept: Plain = answered.json()
    return kept


def test_a_misspelt_field_is_kept_for_the_broker_to_find(cluster: Cluster) -> None:
    spec = GOOD["Role"] | {"conditon": {"StringEqual": {"jwt:ref": ["a"]}}}
    assert stored(cluster, document("Role", spec))["spec"] == spec


def test_a_condition_beside_the_spec_is_kept_too(cluster: Cluster) -> None:
    given = good("Role") | {"condition": {"StringEqual": {"jwt:ref": ["a"]}}}
    assert stored(cluster, given)["condition"] == given["condition"]


def test_a_misspelt_field_of_a_statement_is_kept(cluster: Cluster) -> None:
    given = statement(conditions={"StringEqual": {"jwt:ref": ["a"]}})
    assert stored(cluster, given)["spec"] == given["spec"]


@pytest.mark.parametrize("field", ["condition", "principal", "tokenExpiry"])
def test_a_null_is_kept_and_not_taken_for_a_field_left_out(cluster: Cluster, field: str) -> None:
    spec = {"principal": {"jwt:sub": ["a"]}, **GOOD["Role"], field: None}
    assert stored(cluster, document("Role", spec))["spec"][field] is None


def test_a_status_in_the_object_is_ignored(cluster: Cluster) -> None:
    given = good("Role") | {"status": {"observedGeneration": 7}}
    assert "status" not in stored(cluster, given)


# What a reader sees


def test_the_kinds_have_short_names_and_a_category(cluster: Cluster) -> None:
    listed = cluster.kubectl("api-resources", "--api-group=iam.openfaas.com", "-o", "wide")
    rows = [line.split() for line in listed.splitlines()[1:]]
    assert {(row[0], row[1], row[-1]) for row in rows} == {
        ("jwtissuers", "jwti", "openfaas-iam"),
        ("policies", "iampol", "openfaas-iam"),
        ("roles", "iamrole", "openfaas-iam"),
    }


def test_a_list_shows_what_matters(cluster: Cluster) -> None:
    cluster.create_namespace("columns")
    for kind in GOOD:
        cluster.kubectl("-n", "columns", "apply", "-f", "-", given=json.dumps(good(kind)))
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "Refused",
        "message": "T002: nothing pins the owner",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    place = "/apis/iam.openfaas.com/v1/namespaces/columns/roles/a/status?fieldManager=federation"
    status = {"observedGeneration": 1, "conditions": [ready]}
    given = good("Role") | {"status": status}
    del given["spec"]
    applied = cluster.request("PATCH", place, given, content_type="application/apply-patch+yaml")
    assert applied.status_code == 200, applied.text

    header, values = cluster.kubectl("-n", "columns", "get", "iamrole", "-o", "wide").splitlines()
    starts = [(one.group(), one.start()) for one in re.finditer(r"\S+", header)]
    ends = [*(start for _, start in starts[1:]), None]
    shown = {
        name: values[start:end].strip() for (name, start), end in zip(starts, ends, strict=True)
    }
    assert (shown["READY"], shown["REASON"]) == ("False", "Refused")
    assert shown["POLICIES"] == '["p"]'
    assert shown["MESSAGE"] == ready["message"]
    assert "https://idp.example.com" in cluster.kubectl("-n", "columns", "get", "jwti")
    assert "FIRST ALLOW" in cluster.kubectl("-n", "columns", "get", "iampol")
    listed = cluster.kubectl("-n", "columns", "get", "openfaas-iam", "-o", "name").split()
    assert listed == [f"{kind}.iam.openfaas.com/a" for kind in ("jwtissuer", "policy", "role")]


def test_kubectl_explains_the_fields(cluster: Cluster) -> None:
    assert "at least" not in cluster.kubectl("explain", "iamrole.spec")
    assert "Names of the policies it gives" in cluster.kubectl("explain", "iamrole.spec.policy")


# Applying and upgrading


def versions(cluster: Cluster) -> dict[str, str]:
    listed: list[Plain] = json.loads(cluster.kubectl("get", "crd", "-o", "json"))["items"]
    return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in listed}


def older() -> list[Plain]:
    """The definitions as an older version could have had them: fewer fields, another column."""
    made: list[Plain] = json.loads(json.dumps(crds()))
    for one in made:
        (version,) = one["spec"]["versions"]
        version["additionalPrinterColumns"].append(
            {"name": "Old", "type": "string", "jsonPath": ".spec.old"}
        )
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["x-kubernetes-validations"] = []
        for name in ("clients", "authorizedParties", "bearerTokenFile", "tokenExpiry"):
            spec["properties"].pop(name, None)
    return made


def test_an_upgrade_keeps_the_objects_and_takes_away_what_was_old(tmp_path: Path) -> None:
    with cluster_running(tmp_path / "cluster") as cluster:
        old = tmp_path / "old.yaml"
        old.write_text(yaml.safe_dump_all(older()), "utf-8")
        cluster.apply_crds(old)
        people = good("JwtIssuer", aud=None, clients=["faas-cli"])
        for one in (good("Role"), people, good("JwtIssuer", aud=None, name="old")):
            assert answer(cluster, one, "") == ""

        cluster.apply_crds()
        assert "OLD" not in cluster.kubectl("get", "iamrole")
        assert cluster.get("iamrole", "a")["spec"] == GOOD["Role"]
        assert cluster.get("jwti", "a")["spec"] == people["spec"]
        deadline = time.monotonic() + 20
        while not (told := answer(cluster, good("JwtIssuer", aud=None))):
            assert time.monotonic() < deadline, "the new rules are not in force"
        assert "D006" in told
        # What is there already may stay, until somebody changes it.
        cluster.kubectl("label", "jwti", "old", "a=b")
        change = json.dumps({"spec": {"tokenExpiry": "5m"}})
        with pytest.raises(CommandFailed, match="D006"):
            cluster.kubectl("patch", "jwti", "old", "--type=merge", "-p", change)

        before = versions(cluster)
        assert "serverside-applied" in cluster.apply_crds()
        assert versions(cluster) == before
        made = json.loads(cluster.kubectl("get", "crd", "-o", "json", "--show-managed-fields"))
        for one in made["items"]:
            managers = {entry["manager"] for entry in one["metadata"]["managedFields"]}
            assert "federation-crds" in managers


def test_definitions_of_another_owner_are_not_overwritten_by_accident(tmp_path: Path) -> None:
    with cluster_running(tmp_path / "cluster") as cluster:
        theirs = json.dumps({"apiVersion": "v1", "kind": "List", "items": older()})
        words = ("apply", "--server-side", "--field-manager=helm", "-f", "-")
        cluster.kubectl(*words, given=theirs)
        with pytest.raises(CommandFailed, match="conflict"):
            cluster.apply_crds()
        cluster.kubectl(
            *("apply", "--server-side", "--field-manager=federation-crds", "--force-conflicts"),
            *("-f", str(ROOT / "deploy" / "crds.yaml")),
        )
