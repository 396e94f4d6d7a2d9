"""Parsing documents: values, defaults, error codes, messages, hints and lines."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.documents.assemble import assemble
from federation.documents.codes import Code
from federation.documents.load_json import json_documents
from federation.documents.load_yaml import yaml_documents
from federation.documents.model import ACTION_SETS, ACTIONS, Effect, JwtIssuer, Policy, Role
from federation.documents.parse import FILE_BYTES, Parsed, parse
from federation.documents.suggest import action_hint
from federation.documents.tree import Bare, Document, Fields, Items, Sort, Value, sort
from federation.documents.values import DURATION, duration
from federation.errors import Problem, Severity
from federation.jose.jwk import MAX_PINNED_KEYS, parse_key_set
from federation.policy.conditions import PATTERN_CHARS, Operator

ISSUER = """\
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {name: github}
spec:
  iss: https://token.actions.githubusercontent.com
  aud: ["https://gateway.example.com"]
"""
POLICY = """\
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {name: dev-rw}
spec:
  statement:
    - sid: write
      effect: Allow
      action: ["Function:List", "Function:Create"]
      resource: ["dev:*"]
"""
ROLE = """\
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {name: deployer}
spec:
  policy: [dev-rw]
  condition:
    StringEqual:
      jwt:iss: ["https://token.actions.githubusercontent.com"]
      jwt:repository_id: ["74"]
      jwt:repository_owner_id: ["65"]
      jwt:ref: [refs/heads/main]
"""
SET = f"{ISSUER}---\n{POLICY}---\n{ROLE}"
# The modulus is made up: it is odd and long enough, which is all that can be seen of one.
MODULUS = base64.urlsafe_b64encode(b"\xc5" * 256).decode().rstrip("=")
OTHER = base64.urlsafe_b64encode(b"\xc7" * 256).decode().rstrip("=")
WEAK = base64.urlsafe_b64encode(b"\xc5" * 128).decode().rstrip("=")
RSA = {"kty": "RSA", "kid": "a", "alg": "RS256", "use": "sig", "n": MODULUS, "e": "AQAB"}
COORDINATE = base64.urlsafe_b64encode(b"\x05" * 32).decode().rstrip("=")
EC = {  # the generator of P-256, which is a point on the curve
    "kty": "EC",
    "kid": "b",
    "crv": "P-256",
    "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
    "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU",
}
PEM = """\
-----BEGIN CERTIFICATE-----
MIIBUTCB+KADAgECAhQ7OYS7KEHAGhEcEEP3PyIVle5gxjAKBggqhkjOPQQDAjAW
MRQwEgYDVQQDDAthdXRob3JpdHkgYTAeFw0yNjExMjYyMjUzNTNaFw0yNjExMjcw
MDUzNTNaMBYxFDASBgNVBAMMC2F1dGhvcml0eSBhMFkwEwYHKoZIzj0CAQYIKoZI
zj0DAQcDQgAE38IKO4cucBLzHQ9CCDpAZqVYwb/wnxlS8w6za+lbgv6rJQujLXnz
7EoHyU0vg76aSJlH7gXqV94x+ImoeGNBTaMkMCIwDwYDVR0TAQH/BAUwAwEB/zAP
BgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUCIQDSje0xelOHq1eLwvxR
dlOnN/lADYz0V6ngWIUXF12/bwIgDfdU9ycO6eo7deAQGL1iCUf3eWfe7xYnhLVx
JoorZKI=
-----END CERTIFICATE-----
"""


def read(text: str, path: str = "set.yaml") -> Parsed:
    return parse(path, text.encode())


def only(text: str, path: str = "set.yaml") -> JwtIssuer | Policy | Role:
    """Return the one document in *text*, which must have no errors."""
    parsed = read(text, path)
    assert [p for p in parsed.problems if p.severity is Severity.ERROR] == []
    (document,) = parsed.documents
    return document


def issuer(fields: str = "", text: str = ISSUER) -> JwtIssuer:
    found = only(text + indented(fields, 2))
    assert isinstance(found, JwtIssuer)
    return found


def role(fields: str, head: str = ROLE[: ROLE.index("  condition")]) -> Role:
    found = only(head + indented(fields, 2))
    assert isinstance(found, Role)
    return found


def role_text(condition: str) -> str:
    return ROLE[: ROLE.index("  condition")] + indented(condition, 2)


def policy(statement: str) -> Policy:
    found = only(POLICY[: POLICY.index("    - sid")] + indented(statement, 4))
    assert isinstance(found, Policy)
    return found


def indented(text: str, spaces: int) -> str:
    return "".join(" " * spaces + line for line in dedent(text).splitlines(keepends=True))


def errors(text: str, path: str = "set.yaml") -> list[Problem]:
    """Return the `D` errors of *text*, assembled as a whole set."""
    problems = assemble([read(text, path)]).problems
    return [p for p in problems if p.code.startswith("D")]


def reported(text: str, path: str = "set.yaml") -> list[tuple[str, int]]:
    return [(problem.code, problem.line) for problem in errors(text, path)]


def here(text: str, mark: str = "# here") -> int:
    """Return the line of *text* that has the mark."""
    return next(n for n, line in enumerate(text.splitlines(), 1) if mark in line)


# Documents that are right


def test_a_whole_set_has_no_problems() -> None:
    parsed = read(SET)
    assert parsed.problems == ()
    assert [type(d).__name__ for d in parsed.documents] == ["JwtIssuer", "Policy", "Role"]
    assert parsed.found == 3


def test_a_minimal_issuer_has_all_defaults() -> None:
    found = issuer()
    assert found.name == "github"
    assert found.iss == "https://token.actions.githubusercontent.com"
    assert found.audiences == ("https://gateway.example.com",)
    assert found.provider == "github"
    assert found.token_expiry == timedelta(minutes=15)
    assert found.single_use is True
    assert (found.internal_url, found.jwks_uri, found.jwks, found.ca_bundle) == (None,) * 4
    assert (found.bearer_token_file, found.clients, found.authorized_parties) == (None, (), ())


def test_every_field_of_an_issuer_is_read() -> None:
    found = issuer(
        f"""\
        tokenExpiry: 1h30m
        provider: generic
        issInternal: https://idp.internal:8443/realms/ci
        jwksUri: https://idp.internal/keys?tenant=ci
        subjectTokenUse: once
        bearerTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
        clients: [faas-cli, dashboard]
        authorizedParties: [ci-bot]
        caBundle: |
{indented(PEM, 10)}
        """,
        ISSUER.replace("token.actions.githubusercontent.com", "idp.example.com/realms/ci/"),
    )
    assert found.iss == "https://idp.example.com/realms/ci/"
    assert found.token_expiry == timedelta(hours=1, minutes=30)
    assert found.provider == "generic"
    assert found.internal_url == "https://idp.internal:8443/realms/ci"
    assert found.jwks_uri == "https://idp.internal/keys?tenant=ci"
    assert found.single_use is True
    assert found.ca_bundle == PEM
    assert found.bearer_token_file == "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert found.clients == ("faas-cli", "dashboard")
    assert found.authorized_parties == ("ci-bot",)


def test_an_issuer_of_people_needs_no_aud_and_only_jobs_tokens_are_taken_once() -> None:
    text = ISSUER.replace("token.actions.githubusercontent.com", "gitlab.com")
    people = text.replace('aud: ["https://gateway.example.com"]', "clients: [faas-cli]")
    assert issuer("", text).single_use is True
    assert issuer("", people).audiences == ()
    persons, jobs = {"aud": "faas-cli"}, {"aud": "https://gateway.example.com"}
    assert not issuer("", people).taken_once(persons)
    assert issuer("", people).taken_once(jobs)
    assert issuer("subjectTokenUse: once", people).taken_once(persons)
    assert not issuer("subjectTokenUse: many", people).taken_once(jobs)


def test_a_subject_token_is_used_once_unless_the_document_or_the_provider_says_many() -> None:
    text = ISSUER.replace("token.actions.githubusercontent.com", "idp.example.com")
    assert issuer("", text).single_use is True
    assert issuer("provider: kubernetes", text).single_use is False
    assert issuer("provider: kubernetes\nsubjectTokenUse: once", text).single_use is True
    assert issuer("subjectTokenUse: many", text).single_use is False


def test_pinned_keys_keep_public_members_only() -> None:
    jwks = {"keys": [{**RSA, "x5c": ["MIIB"], "x5u": "https://evil.example"}, EC]}
    found = issuer(f"jwks: {json.dumps(jwks)}")
    assert found.jwks == {"keys": [RSA, EC]}


def test_a_role_has_its_principal_first_and_then_its_conditions_as_written() -> None:
    found = role(
        """\
        tokenExpiry: 5m
        condition:
          StringLike:
            jwt:ref: ["refs/heads/*"]
          StringEquals:
            jwt:iss: https://idp.example.com
            jwt:/org/id: [7, "8", true]
        principal:
          jwt:sub: [one, two]
        """
    )
    assert found.token_expiry == timedelta(minutes=5)
    assert [(c.operator, c.key, c.values) for c in found.conditions] == [
        (Operator.PRINCIPAL, "jwt:sub", ("one", "two")),
        (Operator.STRING_LIKE, "jwt:ref", ("refs/heads/*",)),
        (Operator.STRING_EQUAL, "jwt:iss", ("https://idp.example.com",)),
        (Operator.STRING_EQUAL, "jwt:/org/id", ("7", "8", "true")),
    ]
    assert found.places == (
        ("spec", "principal", "jwt:sub"),
        ("spec", "condition", "StringLike", "jwt:ref"),
        ("spec", "condition", "StringEquals", "jwt:iss"),
        ("spec", "condition", "StringEquals", "jwt:/org/id"),
    )


def test_every_place_knows_its_line() -> None:
    text = dedent("""\
        # a comment first
        ---
        apiVersion: iam.openfaas.com/v1
        kind: Role
        metadata:
          name: deployer
        spec:
          policy:
            - dev-rw
          condition:
            StringLike:
              jwt:repository:
                - acme/*
                - octo/*
              jwt:ref: [refs/heads/main]
        """)
    found = only(text)
    origin = found.origin
    assert (origin.path, origin.line) == ("set.yaml", 3)
    assert origin.line_of("spec", "policy", 0) == 9
    assert origin.line_of("spec", "condition") == 10
    assert origin.line_of("spec", "condition", "StringLike", "jwt:repository") == 12
    assert origin.line_of("spec", "condition", "StringLike", "jwt:repository", 1) == 14
    assert origin.line_of("spec", "condition", "StringLike", "jwt:ref", 0) == 15
    assert origin.line_of("spec", "nothing") == 7


def test_a_statement_is_read_whole() -> None:
    found = policy(
        """\
        - sid: all
          effect: Allow
          action: ["*"]
          resource: ["*"]
          condition:
            ForAnyValue:StringEqual:
              jwt:groups: [ops]
        - sid: never
          effect: Deny
          action: ["Secret:*", "Function:Read"]
          resource: ["prod:*", "team-*:*"]
        """
    )
    allow, deny = found.statements
    assert (allow.sid, allow.effect, allow.actions) == ("all", Effect.ALLOW, ACTIONS)
    assert [(c.operator, c.key) for c in allow.conditions] == [
        (Operator.ANY_STRING_EQUAL, "jwt:groups")
    ]
    assert deny.effect is Effect.DENY
    assert deny.actions == ACTION_SETS["Secret:*"] | {
        "Function:List",
        "Function:Get",
        "Function:Logs",
    }
    assert [resource.text for resource in deny.resources] == ["prod:*", "team-*:*"]
    assert found.origin.line_of("spec", "statement", 1, "sid") == 13


@pytest.mark.parametrize(
    "written",
    [
        "StringEqual",
        "StringEquals",
        "StringEqualIgnoreCase",
        "StringEqualsIgnoreCase",
        "StringLike",
        "StringNotEqual",
        "StringNotEquals",
        "StringNotLike",
        "ForAnyValue:StringEqual",
        "ForAnyValue:StringLike",
    ],
)
def test_every_operator_and_alias_is_accepted(written: str) -> None:
    (condition,) = role(f"condition: {{{written}: {{jwt:a: [x]}}}}").conditions
    assert condition.operator.value == written.replace("Equals", "Equal")


@pytest.mark.parametrize("action", sorted(ACTION_SETS))
def test_every_action_stands_for_its_set(action: str) -> None:
    found = policy(f'- {{sid: a, effect: Allow, action: ["{action}"], resource: ["*"]}}')
    assert found.statements[0].actions == ACTION_SETS[action]


@pytest.mark.parametrize("action", ["Documents:Read", "Audit:Read"])
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_what_is_about_the_whole_cluster_needs_the_whole_cluster(action: str, effect: str) -> None:
    written = f'{{sid: a, effect: {effect}, action: [Function:List, "{action}"], resource: %s}}'
    for everything in ('["*"]', '["*:*"]', '["dev:*", "*"]'):
        assert policy(f"- {written % everything}").statements[0].actions == {
            "Function:List",
            action,
        }
    for less in ('["dev:*"]', '["*:figlet", "dev*:*"]'):
        head = POLICY[: POLICY.index("    - sid")]
        (problem,) = read(f"{head}    - {written % less}\n").problems
        assert (problem.code, problem.field) == ("D028", "statement[0].resource")
        assert f"{action} is about the whole cluster" in problem.message
        assert problem.hint.startswith('write "*"')


def test_a_wildcard_for_actions_needs_no_whole_cluster() -> None:
    found = policy('- {sid: a, effect: Allow, action: ["*"], resource: ["dev:*"]}')
    assert "Documents:Read" in found.statements[0].actions


def test_what_kubectl_adds_is_tolerated() -> None:
    metadata = """metadata:
  name: github
  namespace: openfaas
  uid: 0000
  resourceVersion: "17"
  creationTimestamp: null
  generation: 3
  labels:
  managedFields: [{manager: kubectl, fieldsV1: {"f:spec": {}}}]
  annotations: {long: "%s", empty: ""}
""" % ("x" * 10_000)
    assert issuer("", ISSUER.replace("metadata: {name: github}\n", metadata)).name == "github"


def test_the_items_of_a_kubernetes_list_are_documents() -> None:
    items = [
        {
            "apiVersion": "iam.openfaas.com/v1",
            "kind": "Policy",
            "metadata": {"name": name},
            "spec": {
                "statement": [
                    {"sid": "a", "effect": "Allow", "action": ["*"], "resource": ["dev:*"]}
                ]
            },
        }
        for name in ("one", "two")
    ]
    text = json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": items, "metadata": {}}, indent=1
    )
    for path in ("list.json", "list.yaml"):
        parsed = read(text, path)
        assert parsed.problems == ()
        assert [d.name for d in parsed.documents] == ["one", "two"]
        second = parsed.documents[1].origin
        assert (
            second.line_of("spec", "statement", 0, "sid")
            == [n for n, line in enumerate(text.splitlines(), 1) if '"sid"' in line][1]
        )


def test_a_list_with_more_than_items_is_refused() -> None:
    assert reported("apiVersion: v1\nkind: List\nitems: []\nstatus: {}\n") == [("D004", 1)]


def test_the_older_api_version_is_accepted_with_a_warning() -> None:
    parsed = read(ISSUER.replace("iam.openfaas.com/v1", "openfaas.com/v1"))
    assert len(parsed.documents) == 1
    (problem,) = parsed.problems
    assert (problem.code, problem.line, problem.severity) == ("W111", 1, Severity.WARNING)
    assert "iam.openfaas.com/v1" in problem.hint


def test_a_list_with_a_key_twice_is_refused() -> None:
    twice = "apiVersion: v1\nkind: List\nitems: []\nitems: [{}] # here\n"
    assert ("D003", 4) in reported(twice)
    inside = f"apiVersion: v1\nkind: List\nitems:\n- {ISSUER.replace(chr(10), chr(10) + '  ')}"
    assert reported(inside.rstrip() + "\n") == []
    assert reported(inside.rstrip() + "\n    aud: [other] # here\n") == [("D003", 10)]


def test_any_number_of_warnings_is_accepted() -> None:
    old = POLICY.replace("iam.openfaas.com/v1", "openfaas.com/v1")
    text = "---\n".join(old.replace("dev-rw", f"p{n}") for n in range(1100))
    parsed = read(text)
    assert len(parsed.documents) == 1100
    assert {problem.code for problem in parsed.problems} == {"W111"}


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "# nothing\n", "---\n---\n", "---\n# a\n---\n# b\n...\n"],
    ids=["empty", "blank", "comment", "markers", "comments"],
)
def test_empty_documents_are_skipped(text: str) -> None:
    assert read(text) == Parsed()


def test_a_byte_order_mark_is_skipped() -> None:
    assert len(parse("a.yaml", b"\xef\xbb\xbf" + SET.encode()).documents) == 3
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": []})
    assert parse("a.json", b"\xef\xbb\xbf" + text.encode()) == Parsed()


def test_anchors_and_aliases_are_accepted() -> None:
    found = role(
        """\
        condition:
          StringEqual: &block
            jwt:iss: &iss [https://idp.example.com]
            jwt:other: *iss
          StringLike: *block
        """
    )
    assert [c.values for c in found.conditions] == [("https://idp.example.com",)] * 4


# One bad document for each code


STATEMENT = "- {sid: a, effect: Allow, action: [System:Info], resource: ['*']}"

BAD: list[tuple[str, str, str]] = [
    ("tab", "D002", ISSUER + "\tx: y # here\n"),
    ("unclosed list", "D002", "a: [b\n--- # here\n"),
    ("unknown alias", "D002", "a: *nowhere # here\n"),
    ("python tag", "D002", 'a: !!python/object/apply:os.system ["true"] # here\n'),
    ("local tag", "D002", "a: !secret b # here\n"),
    ("integer tag", "D002", "a: !!int '5' # here\n"),
    ("control character", "D002", 'a: "\x07" # here\n'),
    ("key that is a list", "D002", "? [a, b] # here\n: c\n"),
    ("duplicate key", "D003", ISSUER + "  aud: [other] # here\n"),
    ("duplicate key far down", "D003", ROLE + '      jwt:ref: ["refs/*"] # here\n'),
    ("duplicate key that is not read", "D003", ISSUER.replace("{name: github}", "{name: github, labels: {a: b, a: c}} # here")),
    ("a string", "D004", "hello # here\n"),
    ("a list", "D004", "- a # here\n"),
    ("a ConfigMap", "D004", "apiVersion: v1 # here\nkind: ConfigMap\nmetadata: {name: a}\n"),
    ("no apiVersion", "D004", "kind: Role # here\n"),
    ("unknown version", "D004", ISSUER.replace("com/v1", "com/v2 # here", 1)),
    ("unknown kind", "D004", "apiVersion: iam.openfaas.com/v1 # here\nkind: Rol\n"),
    ("unknown field", "D005", ISSUER + "  tokenExpires: 5m # here\n"),
    ("unknown top field", "D005", ISSUER + "state: {} # here\n"),
    ("merge key", "D005", ISSUER + "  <<: {tokenExpiry: 5m} # here\n"),
    ("unknown metadata", "D005", ISSUER.replace("{name: github}", "{name: a, nam: b} # here")),
    ("no iss", "D006", ISSUER.replace("spec:", "spec: # here").replace("  iss", "  # iss")),
    ("no metadata", "D006", ISSUER.replace("metadata: {name: github}\n", "").replace("v1", "v1 # here", 1)),
    ("no name", "D006", ISSUER.replace("{name: github}", "{namespace: a} # here")),
    ("no spec", "D006", "apiVersion: iam.openfaas.com/v1 # here\nkind: Role\nmetadata: {name: a}\n"),
    ("name that is a number", "D007", ISSUER.replace("{name: github}", "{name: 12} # here")),
    ("name in capitals", "D007", ISSUER.replace("{name: github}", "{name: GitHub} # here")),
    ("bare audience", "D007", ISSUER.replace('["https://gateway.example.com"]', "https://g.example # here")),
    ("provider", "D007", ISSUER + "  provider: githup # here\n"),
    ("use", "D007", ISSUER + "  subjectTokenUse: twice # here\n"),
    ("effect", "D007", ROLE + "  effect: Shdow # here\n"),
    ("spec is a list", "D007", "apiVersion: iam.openfaas.com/v1\nkind: Role\nmetadata: {name: a}\nspec: [a] # here\n"),
    ("label", "D007", ISSUER.replace("{name: github}", "{name: a, labels: {a: true}} # here")),
    ("null value", "D007", role_text("condition: {StringEqual: {jwt:a: [~]}} # here\n")),
    ("missing value", "D007", role_text("condition:\n  StringEqual:\n    jwt:a: # here\n")),
    ("float value", "D007", role_text("condition: {StringEqual: {jwt:a: [1.5]}} # here\n")),
    ("nested value", "D007", role_text("condition: {StringEqual: {jwt:a: [[b]]}} # here\n")),
    ("map value", "D007", role_text("condition: {StringEqual: {jwt:a: {b: c}}} # here\n")),
    ("unclear value", "D007", role_text("condition: {StringEqual: {jwt:a: [yes]}} # here\n")),
    ("effect", "D007", POLICY.replace("Allow", "Permit # here")),
    ("no audiences", "D008", ISSUER.replace('["https://gateway.example.com"]', "[] # here")),
    ("null audiences", "D008", ISSUER.replace('["https://gateway.example.com"]', "# here")),
    ("no policies", "D008", ROLE.replace("[dev-rw]", "[] # here")),
    ("empty condition", "D008", role_text("condition: {} # here\n")),
    ("condition left blank", "D008", ROLE.replace("[dev-rw]", "[a]")[: ROLE.index("  condition") - 5] + "  condition: # here\n"),
    ("empty operator", "D008", role_text("condition:\n  StringEqual: {} # here\n")),
    ("empty values", "D008", role_text("condition:\n  StringEqual:\n    jwt:a: [] # here\n")),
    ("no statements", "D008", POLICY[: POLICY.index("statement")] + "statement: [] # here\n"),
    ("one name twice", "D009", SET + "---\n" + POLICY.replace("dev-rw}", "dev-rw} # here")),
    ("one iss twice", "D010", SET + "---\n" + ISSUER.replace("github}", "other}").replace("content.com", "content.com # here")),
    ("missing policy", "D011", SET.replace("policy: [dev-rw]", "policy: [dev-rw, dev-ro] # here")),
    ("operator", "D012", role_text("condition:\n  StringLikes: {jwt:a: [b]} # here\n")),
    ("principal as operator", "D012", role_text("condition:\n  principal: {jwt:a: [b]} # here\n")),
    ("for all values", "D012", role_text("condition:\n  ForAllValues:StringEqual: {jwt:a: [b]} # here\n")),
    ("key without prefix", "D013", role_text("condition:\n  StringEqual:\n    iss: [b] # here\n")),
    ("key that is a prefix", "D013", role_text('condition:\n  StringEqual:\n    "jwt:": [b] # here\n')),
    ("bad pointer", "D013", role_text("condition:\n  StringEqual:\n    jwt:/a~b: [b] # here\n")),
    ("principal key", "D013", role_text("principal:\n  sub: [b] # here\n")),
    ("action", "D014", POLICY.replace('["Function:List", "Function:Create"]', "[Function:Lst] # here")),
    ("resource", "D015", POLICY.replace('["dev:*"]', "[dev] # here")),
    ("resource with too many halves", "D015", POLICY.replace('["dev:*"]', '["a:b:c"] # here')),
    ("empty half", "D015", POLICY.replace('["dev:*"]', '[":b"] # here')),
    ("duration", "D016", ISSUER + "  tokenExpiry: 15 # here\n"),
    ("signed duration", "D016", ISSUER + "  tokenExpiry: -15m # here\n"),
    ("too short", "D016", ISSUER + "  tokenExpiry: 59s # here\n"),
    ("too long", "D016", ISSUER + "  tokenExpiry: 24h1us # here\n"),
    ("far too long", "D016", ISSUER + f"  tokenExpiry: {'9' * 40}h # here\n"),
    ("no aud and no clients", "D006", ISSUER.replace("spec:", "spec: # here").replace("  aud", "  # aud")),
    ("no clients", "D008", ISSUER + "  clients: [] # here\n"),
    ("empty client", "D007", ISSUER + "  clients: [''] # here\n"),
    ("no authorized parties", "D008", ISSUER + "  authorizedParties: [] # here\n"),
    ("authorized parties of people", "D007", ISSUER.replace('aud: ["https://gateway.example.com"]', "clients: [a]") + "  authorizedParties: [b] # here\n"),
    ("relative token file", "D007", ISSUER + "  bearerTokenFile: secrets/token # here\n"),
    ("token file with a line end", "D007", ISSUER + '  bearerTokenFile: "/a\\nb" # here\n'),
    ("jwks and bearerTokenFile", "D023", ISSUER + f"  jwks: {json.dumps({'keys': [RSA]})}\n  bearerTokenFile: /a # here\n"),
    ("http", "D017", ISSUER.replace("https://token", "http://token").replace("content.com", "content.com # here")),
    ("key address", "D017", ISSUER + "  jwksUri: ftp://a/b # here\n"),
    ("sid twice", "D018", POLICY + '    - sid: write # here\n      effect: Deny\n      action: ["*"]\n      resource: ["*"]\n'),
    ("no conditions", "D019", ROLE[: ROLE.index("  condition")].replace("spec:", "spec: # here")),
    ("private key", "D020", ISSUER + f"  jwks: {json.dumps({'keys': [{**RSA, 'd': 'AQAB'}]})} # here\n"),
    ("private key in caBundle", "D020", ISSUER + '  caBundle: "-----BEGIN PRIVATE KEY-----\\nMII=\\n-----END PRIVATE KEY-----" # here\n'),
    ("provider contradicts", "D022", ISSUER + "  provider: generic # here\n"),
    ("jwks and jwksUri", "D023", ISSUER + f"  jwks: {json.dumps({'keys': [RSA]})}\n  jwksUri: https://a.example/ # here\n"),
    ("jwks and issInternal", "D023", ISSUER + f"  jwks: {json.dumps({'keys': [RSA]})}\n  issInternal: https://a.example/ # here\n"),
    ("less than the cluster", "D028", POLICY.replace("Function:List", "Audit:Read").replace('["dev:*"]', '["dev:*"] # here')),
    ("long value", "D024", role_text(f"condition: {{StringEqual: {{jwt:a: [{'x' * 4097}]}}}} # here\n")),
    ("long pattern", "D024", role_text(f"condition: {{StringLike: {{jwt:a: [{'x' * (PATTERN_CHARS + 1)}]}}}} # here\n")),
    ("many values", "D024", role_text(f"condition: {{StringEqual: {{jwt:a: [{'x, ' * 1001}]}}}} # here\n")),
    ("many keys", "D024", role_text("condition: {StringEqual: {" + ", ".join(f"jwt:a{number}: x" for number in range(101)) + "}} # here\n")),
    ("many keys of a principal", "D024", role_text("principal: {" + ", ".join(f"jwt:a{number}: x" for number in range(101)) + "} # here\n")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "text"), [(code, text) for _, code, text in BAD], ids=[case for case, _, _ in BAD]
)
def test_each_mistake_is_reported_once_with_its_line(code: str, text: str) -> None:
    with_policy = text if "dev-rw" not in text or "kind: Policy" in text else f"{text}---\n{POLICY}"
    assert reported(with_policy) == [(code, here(with_policy))]
    assert assemble([read(with_policy)]).catalog is None


def test_every_code_has_a_bad_document() -> None:
    elsewhere = {
        *(Code.FILE_UNREADABLE, Code.NO_DOCUMENTS, Code.OLD_API_VERSION),
        *(Code.PROVIDER_FORGOTTEN, Code.OWN_ISSUER, Code.TOKEN_FILE_OUTSIDE),
    }
    assert {code for _, code, _ in BAD} == {code.value for code in set(Code) - elsewhere}


def test_all_problems_of_all_documents_are_reported_at_once() -> None:
    text = dedent("""\
        apiVersion: iam.openfaas.com/v1
        kind: JwtIssuer
        metadata: {name: A}
        spec:
          iss: nowhere
          aud: []
          tokenExpiry: never
          colour: red
        ---
        a: [unclosed
        ---
        apiVersion: iam.openfaas.com/v1
        kind: Role
        metadata: {name: r}
        spec:
          condition:
            StringEqul:
              jwt:a: [b]
        """)
    assert reported(text) == [
        ("D007", 3),
        ("D017", 5),
        ("D008", 6),
        ("D016", 7),
        ("D005", 8),
        ("D002", 11),
        ("D006", 15),
        ("D012", 17),
    ]


def test_a_problem_speaks_of_the_document() -> None:
    (problem,) = errors(role_text('condition: {StringEqul: {"jwt:a": [b]}}\n') + f"---\n{POLICY}")
    assert (problem.path, problem.line) == ("set.yaml", 6)
    assert (problem.kind, problem.name) == ("Role", "deployer")
    assert problem.field == "condition.StringEqul"
    assert problem.message == '"StringEqul" is not an operator'
    assert problem.hint == "did you mean StringEqual?"


HINTS: list[tuple[str, str, str]] = [
    ("field", ISSUER + "  tokenExpires: 5m\n", "did you mean tokenExpiry?"),
    ("kind", ISSUER.replace("JwtIssuer", "JWTIssuer"), "did you mean JwtIssuer?"),
    ("unclear word", role_text("condition: {StringEqual: {jwt:a: no}}\n"), 'quote it: "no"'),
    ("yes", role_text("condition: {StringEqual: {jwt:ref_protected: yes}}\n"), 'write "true"'),
    ("off", role_text("condition: {StringEqual: {jwt:ref_protected: Off}}\n"), 'write "false"'),
    ("octal", role_text("condition: {StringEqual: {jwt:a: 0123}}\n"), 'quote it: "0123"'),
    ("number", ISSUER.replace("{name: github}", "{name: 12}"), 'quote it: "12"'),
    ("key", role_text("condition: {StringEqual: {iss: a}}\n"), 'write "jwt:iss"'),
    ("action", POLICY.replace("Function:List", "function:list"), "did you mean Function:List?"),
    ("resource", POLICY.replace("dev:*", "figlet"),
     'for a function write "<namespace>:figlet", for example "openfaas-fn:figlet"'),
    ("namespace", POLICY.replace("dev:*", "dev"), 'only for a whole namespace "dev:*"'),
    ("field of a statement", POLICY.replace("{name: dev-rw}", "{name: dev-rw, action: []}"),
     "it belongs under spec.statement"),
    ("field of the spec", POLICY + "statement: []\n", "it belongs under spec"),
    ("field of the metadata", ISSUER + "  labels: {}\n", "it belongs under metadata"),
    ("list", ISSUER.replace('["https://gateway.example.com"]', "https://g"), 'write ["https://g"]'),
    ("provider", ISSUER + "  provider: generic\n", "write github, or leave provider out"),
    ("api version", "apiVersion: v1\nkind: Secret\n", "iam.openfaas.com/v1"),
    ("for all", role_text("condition: {'ForAllValues:StringEqual': {jwt:a: [b]}}\n"), "ForAnyValue"),
    ("private key", ISSUER + f"  jwks: {json.dumps({'keys': [{**RSA, 'p': 'AQAB'}]})}\n", "leaked"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "hint"), [(text, hint) for _, text, hint in HINTS], ids=[h[0] for h in HINTS]
)
def test_a_hint_shows_the_right_spelling(text: str, hint: str) -> None:
    assert hint in " ".join(p.hint for p in errors(text))


ACTION_HINTS = {
    "Function:Deploy": "write Function:Create and Function:Update",
    "function:deploy": "write Function:Create and Function:Update",
    "Deploy": "write Function:Create and Function:Update",
    "Functions:Write": "write Function:Create and Function:Update",
    "Secret:Put": "write Secret:Create and Secret:Update",
    "Function:Remove": "write Function:Delete",
    "Function:Delet": "did you mean Function:Delete?",
    "Function:delete": "did you mean Function:Delete?",
    "Function:Call": "write Function:Invoke",
    "Function:Describe": "write Function:List and Function:Get",
    "Secret:Describe": "write Secret:List",
    "Function:Creat": "did you mean Function:Create?",
    "Function:Xyzzy": "known here: Function:*, ",
    "Widget:List": "before the colon",
    "Document:Read": "did you mean Documents:Read?",
    "audits:read": "did you mean Audit:Read?",
    "Documents:List": "known here: Documents:Read",
    "Audit:*": "known here: Audit:Read",
    "": "known here: Function:*, ",
}


@pytest.mark.parametrize(("action", "hint"), ACTION_HINTS.items())
def test_a_hint_for_an_action_names_what_was_meant(action: str, hint: str) -> None:
    assert action_hint(action).startswith(hint) or hint in action_hint(action)


@pytest.mark.parametrize(
    "verb", ["Deploy", "Relate", "Select", "Depot", "Deliver", "Elevate", "Delegate"]
)
@pytest.mark.parametrize("group", ["Function", "Secret", "Namespace"])
def test_a_hint_never_takes_another_word_for_delete(group: str, verb: str) -> None:
    hint = action_hint(f"{group}:{verb}")
    assert "did you mean" not in hint or "Delete" not in hint


@pytest.mark.parametrize("group", ["Deployments", "Components", "Docs", "Events", "Auth", "Logs"])
def test_a_hint_never_takes_another_word_for_what_shows_all_rules(group: str) -> None:
    for verb in ("Read", "List", "Get", "*"):
        hint = action_hint(f"{group}:{verb}")
        assert "did you mean" not in hint
        assert not hint.startswith("known here: Documents")


def test_a_file_that_is_not_utf_8_is_reported_with_its_line() -> None:
    (problem,) = parse("a.yaml", b"a: b\nc: \xff\n").problems
    assert (problem.code, problem.line) == ("D001", 2)


def test_a_file_that_is_too_large_is_not_read() -> None:
    (problem,) = parse("a.yaml", b"#" * (FILE_BYTES + 1)).problems
    assert (problem.code, problem.line) == ("D001", 0)


# Scalars


SCALARS: list[tuple[str, Sort]] = [
    *((text, Sort.NULL) for text in ("", "~", "null", "Null", "NULL")),
    *((text, Sort.BOOL) for text in ("true", "True", "TRUE", "false", "False", "FALSE")),
    *((text, Sort.INT) for text in ("0", "7", "-7", "123456789012345678901234567890")),
    *((text, Sort.FLOAT) for text in ("1.5", "1.", ".5", "1e3", "-1E-3", "12e03", ".inf", "-.Inf", ".nan")),
    *((text, Sort.UNCLEAR) for text in ("yes", "Yes", "YES", "no", "on", "Off", "y", "N")),
    *((text, Sort.UNCLEAR) for text in ("0123", "00", "0o17", "0x1F", "0b11", "1_000", "1:30", "190:20:30", "+12", "-0")),
    # kubectl and Helm read these as numbers too: Go takes capitals, and drops every underscore.
    *((text, Sort.UNCLEAR) for text in ("0X1F", "0B11", "0O17", "-0X1F", "1e1_0", "+_1", ".5_0", "0_x1F", "-_5")),
    *((text, Sort.TEXT) for text in ("0_g", "1_a", "10.0.0_1", "+_", "0Xg", "1_2_a")),
    *((text, Sort.TEXT) for text in ("a", "yEs", "nothing", "2024-01-01", "1.2.3", "10.0.0.1", "v1", "-", "--", "1e", "0xZ", "1:90", "tRue", "nULL", "<<", "=", "refs/heads/main")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"), SCALARS, ids=[text or "nothing" for text, _ in SCALARS]
)
def test_a_plain_scalar_is_what_yaml_1_2_says_or_unclear(text: str, expected: Sort) -> None:
    assert sort(text) is expected
    (document,) = yaml_documents(f"- {json.dumps(text)}\n".encode())
    assert isinstance(document, Document)
    assert document.root == [text]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("412890077", "412890077"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("TRUE", "true"),
        ("False", "false"),
        ("'yes'", "yes"),
        ('"0123"', "0123"),
        ("'~'", "~"),
        ("!!str 1.5", "1.5"),
        ("acme/shop", "acme/shop"),
        ("''", ""),
    ],
)
def test_a_bare_value_reads_as_a_list_of_one(written: str, value: str) -> None:
    for form in (written, f"[{written}]"):
        (condition,) = role(f"condition: {{StringEqual: {{jwt:a: {form}}}}}").conditions
        assert condition.values == (value,)
        (principal,) = role(f"principal: {{jwt:a: {form}}}").conditions
        assert principal.values == (value,)


@pytest.mark.parametrize(
    "value", [c for c, s in SCALARS if s in {Sort.NULL, Sort.FLOAT, Sort.UNCLEAR}]
)
def test_no_other_scalar_is_a_value(value: str) -> None:
    assert [c for c, _ in reported(role_text(f"condition:\n  StringEqual:\n    jwt:a: {value}\n") + f"---\n{POLICY}")] == ["D007"]  # fmt: skip


def test_json_has_the_same_scalars() -> None:
    text = json.dumps(
        {
            "apiVersion": "iam.openfaas.com/v1",
            "kind": "Role",
            "metadata": {"name": "r"},
            "spec": {
                "policy": ["p"],
                "condition": {"StringEqual": {"jwt:a": [1, True, "yes", "\U0001f600"]}},
            },
        }
    )
    found = only(text, "a.json")
    assert isinstance(found, Role)
    assert found.conditions[0].values == ("1", "true", "yes", "\U0001f600")


# Durations and URLs


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("12h", 43200),
        ("1.5h", 5400),
        (".5h", 1800),
        ("1.m", 60),
        ("60000ms", 60),
        ("60000000us", 60),
        ("60000000µs", 60),
        ("60000000μs", 60),
        ("60000000000ns", 60),
        ("30s1m", 90),
    ],
)
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "15", "m", "-5m", "+5m", "5 m", "5d", "5M", "1h-5m", ".m", "٣m", "1h" * 40, "5m\n"]
)
def test_no_other_text_is_a_duration(text: str) -> None:
    assert duration(text) is None


@given(st.from_regex(DURATION, fullmatch=True))
def test_every_duration_has_a_length(text: str) -> None:
    assert len(text) > 64 or duration(text) is not None


@pytest.mark.parametrize(
    "iss",
    [
        "https://idp.example.com",
        "https://idp.example.com/",
        "https://idp.example.com:8443/realms/a%20b/",
        "https://IDP.example.com",
        "https://[2001:db8::1]:8443",
        "http://localhost:8080",
        "http://127.0.0.1",
        "http://127.9.9.9:1/x",
        "http://[::1]:8080",
    ],
)
def test_an_iss_stays_as_it_was_written(iss: str) -> None:
    text = ISSUER.replace("https://token.actions.githubusercontent.com", f'"{iss}"')
    assert issuer("", text).iss == iss


@pytest.mark.parametrize(
    "iss",
    [
        "idp.example.com",
        "HTTPS://idp.example.com",
        "//idp.example.com",
        "https:idp.example.com",
        "https://",
        "https:///path",
        "https://:443",
        "https://idp.example.com:",
        "https://idp.example.com:0",
        "https://idp.example.com:99999",
        "https://idp.example.com:x",
        "https://user@idp.example.com",
        "https://user:pass@idp.example.com",
        "https://good.example\\\\@evil.example",
        "https://idp.example.com?",
        "https://idp.example.com?a=b",
        "https://idp.example.com#",
        "https://idp.example.com#x",
        "https://idp.example.com /",
        " https://idp.example.com",
        "https://idp.example.com\\n",
        "https://idp.\\u200bexample.com",
        "https://ídp.example.com",
        "https://a%2fb",
        "https://[::1",
        "https://[v1.x]",
        "http://idp.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://127.1",
        "http://0.0.0.0",
        "http://10.0.0.1",
        "http://2130706433",
        "http://[::ffff:10.0.0.1]",
        "file:///etc/passwd",
        "javascript:alert(1)",
    ],
)
def test_an_iss_that_is_not_a_plain_url_is_refused(iss: str) -> None:
    text = ISSUER.replace("https://token.actions.githubusercontent.com", f'"{iss}"')
    assert reported(text) == [("D017", 5)]


def test_a_client_cannot_be_an_audience_of_workloads_too() -> None:
    text = ISSUER + "  clients: [faas-cli, 'https://gateway.example.com']\n"
    (problem,) = errors(text)
    assert (problem.code, problem.field) == ("D007", "clients[1]")
    assert "in aud too" in problem.message


# Pinned keys


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"keys": []},
        {"keys": {}},
        {"kees": [RSA]},
        {"keys": ["text"]},
        {"keys": [{}]},
        {"keys": [{**RSA, "kty": "oct"}]},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]},
        {"keys": [{k: v for k, v in RSA.items() if k != "e"}]},
        {"keys": [{**RSA, "n": WEAK}]},
        {"keys": [{**RSA, "n": MODULUS + "="}]},
        {"keys": [{**RSA, "n": MODULUS + "\n"}]},
        {"keys": [{**RSA, "n": ""}]},
        {"keys": [{**RSA, "n": 5}]},
        {"keys": [{**RSA, "e": "AQ"}]},
        {"keys": [{**EC, "crv": "P-1"}]},
        {"keys": [{**EC, "crv": "P-384"}]},
        {"keys": [{**EC, "d": COORDINATE}]},
        {"keys": [RSA, {**RSA, "n": OTHER}]},
        {"keys": [RSA, {**RSA, "n": OTHER, "alg": ""}]},
        {"keys": [{**RSA, "n": None}]},
        {"keys": [{**RSA, "d": None}]},
        {"keys": [{**RSA, "kid": []}]},
        "text",
        [],
    ],
    ids=lambda jwks: json.dumps(jwks)[:40],
)
def test_pinned_keys_must_be_public_and_whole(jwks: object) -> None:
    found = reported(f"{ISSUER}  jwks: {json.dumps(jwks)}\n")
    assert found
    assert {line for _, line in found} == {7}
    assert {code for code, _ in found} <= {"D007", "D008", "D020"}


def curve(crv: str, size: int, **members: str) -> dict[str, object]:
    """A key on *crv* whose coordinates have the right *size*."""
    coordinate = base64.urlsafe_b64encode(b"\x05" * size).decode().rstrip("=")
    kty = "EC" if crv in {"P-384", "P-521", "secp256k1"} else "OKP"
    return {"kty": kty, "crv": crv, "x": coordinate, **({"y": coordinate} if kty == "EC" else {}), **members}  # fmt: skip


# Public and whole, and yet the key ring skips them: every token that they sign would be refused.
UNUSABLE: dict[str, dict[str, object]] = {
    "secp256k1": curve("secp256k1", 32),
    "Ed448": curve("Ed448", 57),
    "X25519": curve("X25519", 32),
    "X448": curve("X448", 56),
    "not on the curve": {**EC, "x": EC["y"], "y": EC["x"]},
    "Ed25519 of 31 bytes": curve("Ed25519", 31),
    "for encryption": {**RSA, "use": "enc"},
    "not for verifying": {**RSA, "key_ops": ["sign"]},
    "unknown alg": {**RSA, "alg": "RSA-OAEP"},
    "alg of another kind": {**RSA, "alg": "ES256"},
    "long kid": {**RSA, "kid": "k" * 257},
    "exponent of 72 bits": {**RSA, "e": "A" * 11 + "B"},
    "RSA of 8,200 bits": {**RSA, "n": base64.urlsafe_b64encode(b"\xc5" * 1025).decode().rstrip("=")},
}  # fmt: skip


@pytest.mark.parametrize("key", UNUSABLE.values(), ids=UNUSABLE)
def test_a_pinned_key_that_the_key_ring_would_skip_is_refused(key: dict[str, object]) -> None:
    assert parse_key_set({"keys": [key]}).skipped
    good = {**RSA, "kid": "good"}
    text = f"{ISSUER}  jwks:\n    keys:\n    - {json.dumps(good)}\n    - {json.dumps(key)} # here\n"
    assert reported(text) == [("D020", here(text))]


@pytest.mark.parametrize(("key", "lost", "read"), [(RSA, "n", "false"), (EC, "y", "true")])
def test_a_name_that_kubectl_took_for_a_boolean_is_explained(
    key: Mapping[str, object], lost: str, read: str
) -> None:
    read_by_kubectl = {read if name == lost else name: value for name, value in key.items()}
    text = f"{ISSUER}  jwks: {json.dumps({'keys': [read_by_kubectl]})}\n"
    (problem,) = parse("a.yaml", text.encode()).problems
    assert problem.code == "D020"
    assert "in quotes" in problem.hint


def test_every_unusable_pinned_key_is_reported_at_its_line() -> None:
    named = {
        case: key if case == "long kid" else {**key, "kid": case} for case, key in UNUSABLE.items()
    }
    keys = list(named.values())
    listed = "".join(f"    - {json.dumps(key)}\n" for key in keys)
    expected = [("D020", line) for line in range(9, 9 + len(keys))]
    assert reported(f"{ISSUER}  jwks:\n    keys:\n{listed}") == expected


@pytest.mark.parametrize("key", [RSA, EC, curve("Ed25519", 32)], ids=["RSA", "P-256", "Ed25519"])
def test_a_pinned_key_that_is_accepted_can_be_used(key: dict[str, object]) -> None:
    found = issuer(f"jwks: {json.dumps({'keys': [key]})}")
    assert found.jwks is not None
    key_set = parse_key_set(found.jwks)
    assert len(key_set.keys) == 1
    assert not key_set.skipped


def test_pinned_keys_may_share_a_kid_where_type_or_algorithm_differ() -> None:
    several = [RSA, {**RSA, "n": OTHER, "alg": "PS256"}, {**EC, "kid": RSA["kid"]}]
    assert issuer(f"jwks: {json.dumps({'keys': several})}").jwks == {"keys": several}
    assert issuer(f"jwks: {json.dumps({'keys': [RSA, RSA]})}").jwks, "one key, written twice"


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_member_of_a_pinned_key_is_as_if_it_were_absent(empty: object) -> None:
    bare = {name: value for name, value in RSA.items() if name not in {"kid", "alg", "use"}}
    written = {"keys": [{**bare, "kid": empty, "alg": empty, "use": empty}]}
    assert issuer(f"jwks: {json.dumps(written)}").jwks == {"keys": [bare]}


def test_no_more_keys_can_be_pinned_than_the_key_ring_keeps() -> None:
    keys = [{**RSA, "kid": f"k{n}"} for n in range(MAX_PINNED_KEYS + 1)]
    assert reported(f"{ISSUER}  jwks: {json.dumps({'keys': keys})}\n") == [("D024", 7)]
    assert issuer(f"jwks: {json.dumps({'keys': keys[1:]})}").jwks is not None


@pytest.mark.parametrize(
    "pem",
    [
        "MIIB",
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\nAQID\n-----END CERTIFICATE-----",
        PEM.replace("MIIBUTCB", "MIIBUTCC"),
        PEM.replace("JoorZKI=", ""),
        "-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        PEM + "-----BEGIN EC PRIVATE KEY-----\nMIIB\n-----END EC PRIVATE KEY-----",
        PEM + "-----BEGIN CERTIFICATE-----\nMIIB\n",
    ],
)
def test_a_ca_bundle_must_be_certificates(pem: str) -> None:
    assert reported(f"{ISSUER}  caBundle: {json.dumps(pem)}\n") == [("D020", 7)]


@pytest.mark.parametrize("mark", [">", ">-", ">+"])
def test_a_folded_ca_bundle_is_named(mark: str) -> None:
    """`>` joins all lines into one, and TLS reads a certificate line by line."""
    block = "".join(f"    {line}\n" for line in PEM.splitlines())
    (problem,) = errors(f"{ISSUER}  caBundle: {mark}\n{block}")
    assert (problem.code, problem.line) == ("D020", 7)
    assert (
        problem.message == "caBundle has a certificate without its line breaks, as after > in YAML"
    )
    assert problem.hint == "write the CA's certificates in PEM, after |"
    assert issuer(f"caBundle: |\n{block}").ca_bundle is not None


# Trees


def plain(value: Value) -> object:
    """*value* as the json module would give it."""
    if isinstance(value, Items):
        return [plain(item) for item in value]
    if isinstance(value, Fields):
        return {key: plain(member) for key, member in value.items()}
    return json.loads(value.text) if isinstance(value, Bare) else value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_json_reads_as_the_json_module_reads_it(
    value: object, indent: int | str | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    (document,) = json_documents(text.encode())
    assert isinstance(document, Document)
    assert plain(document.root) == value


@given(st.text(alphabet='{}[]",:01-.eE+ \n\\utrfalsn/', max_size=30))
def test_json_is_accepted_only_if_the_json_module_accepts_it(text: str) -> None:
    found = list(json_documents(text.encode()))
    try:
        value = json.loads(text, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        assert not any(isinstance(document, Document) for document in found)
    else:
        json.dumps(value, ensure_ascii=False).encode()
        assert isinstance(found[0], Document)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": 1,\n}', 2),
        ('{"a":\n\n NaN}', 3),
        ('// c\n{"a": 1}', 1),
        ('{"a": 1}\n{"b": 2}', 2),
        ("{'a': 1}", 1),
        ('{"a": "x\ny"}', 1),
        ('{"a": 01}', 1),
        ('{"a": "\\ud800"}', 1),
        ("{\n", 2),
        ("[" * 51 + "]" * 51, 1),
        ("a: b", 1),
    ],
)
def test_json_that_is_not_strict_is_reported_with_its_line(text: str, line: int) -> None:
    assert reported(text, "a.json") == [("D002", line)]


def test_a_repeated_member_in_json_is_reported_with_its_line() -> None:
    text = ROLE_JSON.replace('"name": "r"', '"name": "r",\n"name": "q"')
    assert ("D003", here(text, '"q"')) in reported(text, "a.json")


ROLE_JSON = """\
{
  "apiVersion": "iam.openfaas.com/v1",
  "kind": "Role",
  "metadata": {"name": "r"},
  "spec": {"policy": ["p"],
    "condition": {"StringEqual": {
      "jwt:a":
        ["b"]}}}
}
"""


def test_json_knows_its_lines() -> None:
    origin = only(ROLE_JSON, "a.json").origin
    assert origin.line_of("spec", "condition", "StringEqual", "jwt:a") == 7
    assert origin.line_of("spec", "condition", "StringEqual", "jwt:a", 0) == 8


def test_line_numbers_hold_in_files_with_windows_line_ends() -> None:
    text = (ISSUER + "  colour: red # here\n").replace("\n", "\r\n")
    assert reported(text) == [("D005", here(text))]


def test_scalars_and_lines_are_the_same_without_the_c_parser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import yaml

    from federation.documents import load_yaml

    fast = [read(text) for _, _, text in BAD]
    monkeypatch.setattr(load_yaml, "_PARSER", yaml.BaseLoader)
    slow = [read(text) for _, _, text in BAD]
    for one, other in zip(fast, slow, strict=True):
        assert one.documents == other.documents
        assert [(p.code, p.line) for p in one.problems] == [
            (p.code, p.line) for p in other.problems
        ]
