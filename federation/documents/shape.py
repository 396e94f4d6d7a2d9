"""
Which fields documents have, as data: one table for the parser, the JSON Schema and the docs.

A field stands here or it does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

__all__ = [
    "API_VERSION",
    "DOCUMENT",
    "ISSUER",
    "KINDS",
    "METADATA",
    "OLD_API_VERSION",
    "POLICY",
    "ROLE",
    "STATEMENT",
    "FieldSpec",
    "Form",
]

API_VERSION = "iam.openfaas.com/v1"
OLD_API_VERSION = "openfaas.com/v1"


class Form(Enum):
    """What a field holds."""

    ANYTHING = auto()
    ACTIONS = auto()
    CERTIFICATES = auto()
    CONDITION = auto()
    DURATION = auto()
    EFFECT = auto()
    JWKS = auto()
    METADATA = auto()
    NAME = auto()
    PRINCIPAL = auto()
    PROVIDER = auto()
    RESOURCES = auto()
    SPEC = auto()
    STATEMENTS = auto()
    TEXT = auto()
    TEXT_MAP = auto()
    TEXTS = auto()
    URL = auto()
    USE = auto()
    WORD = auto()


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field: what it holds, what it is for, and whether it must be there."""

    form: Form
    about: str
    required: bool = False


Specs = Mapping[str, FieldSpec]

DOCUMENT: Specs = MappingProxyType(
    {
        "apiVersion": FieldSpec(Form.WORD, f"`{API_VERSION}`.", required=True),
        "kind": FieldSpec(Form.WORD, "`JwtIssuer`, `Role` or `Policy`.", required=True),
        "metadata": FieldSpec(Form.METADATA, "The document's name.", required=True),
        "spec": FieldSpec(Form.SPEC, "What the document says.", required=True),
    }
)

# What `kubectl get -o yaml` adds to a document. It is taken and not read.
_ADDED_BY_KUBERNETES = (
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
)

METADATA: Specs = MappingProxyType(
    {
        "name": FieldSpec(Form.NAME, "Unique among the documents of its kind.", required=True),
        **{
            name: FieldSpec(Form.ANYTHING, "Carried and not interpreted.")
            for name in _ADDED_BY_KUBERNETES
        },
        "namespace": FieldSpec(Form.TEXT, "Carried and not interpreted."),
        "labels": FieldSpec(Form.TEXT_MAP, "Carried and not interpreted."),
        "annotations": FieldSpec(Form.TEXT_MAP, "Carried and not interpreted."),
    }
)

ISSUER: Specs = MappingProxyType(
    {
        "iss": FieldSpec(
            Form.URL,
            "The issuer's URL, exactly as its tokens have it in `iss`. "
            "`https`; `http` only for loopback hosts.",
            required=True,
        ),
        "aud": FieldSpec(
            Form.TEXTS, "The audiences that are accepted, compared exactly.", required=True
        ),
        "tokenExpiry": FieldSpec(
            Form.DURATION,
            "How long tokens minted for this issuer live: a Go duration between `1m` and `24h`. "
            "Default `15m`.",
        ),
        "issInternal": FieldSpec(
            Form.URL, "Where discovery and keys are fetched, when that is not at `iss`."
        ),
        "provider": FieldSpec(
            Form.PROVIDER,
            "Which profile the tokens must fit. By default told by `iss` for github.com, ghe.com "
            "and gitlab.com, else `generic`.",
        ),
        "jwksUri": FieldSpec(Form.URL, "Where the keys are fetched, without discovery."),
        "jwks": FieldSpec(
            Form.JWKS, "The issuer's public keys, pinned. Nothing is fetched for this issuer."
        ),
        "caBundle": FieldSpec(
            Form.CERTIFICATES, "Certificates in PEM that are trusted for this issuer alone."
        ),
        "subjectTokenUse": FieldSpec(
            Form.USE,
            "Whether one subject token may be exchanged once or many times. Default `once` for "
            "github and gitlab, `many` for generic.",
        ),
    }
)

ROLE: Specs = MappingProxyType(
    {
        "policy": FieldSpec(Form.TEXTS, "Names of the policies it gives.", required=True),
        "principal": FieldSpec(
            Form.PRINCIPAL,
            "For each `jwt:<claim>` the values it may have. A Role needs this or `condition`; "
            "where it has both, both must hold.",
        ),
        "condition": FieldSpec(Form.CONDITION, "For each operator, for each key, its values."),
        "tokenExpiry": FieldSpec(
            Form.DURATION,
            "The longest life of a token that this Role takes part in: a Go duration between "
            "`1m` and `24h`.",
        ),
    }
)

POLICY: Specs = MappingProxyType(
    {"statement": FieldSpec(Form.STATEMENTS, "What the policy says, in order.", required=True)}
)

STATEMENT: Specs = MappingProxyType(
    {
        "sid": FieldSpec(
            Form.TEXT, "The statement's name, unique in its policy. Decisions name it.", True
        ),
        "effect": FieldSpec(
            Form.EFFECT, "`Allow` or `Deny`. A matching Deny always wins.", required=True
        ),
        "action": FieldSpec(Form.ACTIONS, "Actions, or sets of them.", required=True),
        "resource": FieldSpec(
            Form.RESOURCES, "`*`, `<namespace>:*` or `<namespace>:<function>`.", required=True
        ),
        "condition": FieldSpec(
            Form.CONDITION, "When the statement holds, read against the access token's claims."
        ),
    }
)

KINDS: Mapping[str, Specs] = MappingProxyType({"JwtIssuer": ISSUER, "Policy": POLICY, "Role": ROLE})
