"""
The fields of documents as pydantic models: `python -m federation.documents.schema` prints the
JSON Schema.

The models hold what a file says: strings stay strings, and `documents.convert` makes durations,
conditions and resources of them. A field that is not on a model does not exist. Rules that need
two fields or two documents are not here. The types of the fields are in `documents.field_types`.

Errors of pydantic's own have a message in `documents.messages`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    create_model,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from federation.documents.codes import Code
from federation.documents.field_types import (
    AbsolutePath,
    Accesses,
    Actions,
    Base64url,
    Certificates,
    Claims,
    Duration,
    Keys,
    Labels,
    Listed,
    MemberText,
    Name,
    Names,
    PatternKeys,
    Resources,
    Schema,
    Text,
    Texts,
    Url,
    UrlWithQuery,
    budget_of,
    one_of,
    what,
    wrong,
)
from federation.documents.model import BROKER_ACTIONS, Effect, RoleEffect
from federation.documents.tree import is_null
from federation.errors import Reason
from federation.jose.jwk import MAX_PINNED_KEYS, PRIVATE_MEMBERS, parse_key
from federation.policy.conditions import ALIASES, Operator
from federation.providers.table import PROFILES

GROUP, VERSION = "iam.openfaas.com", "v1"
API_VERSION = f"{GROUP}/{VERSION}"
PLURALS: Mapping[str, str] = {"JwtIssuer": "jwtissuers", "Policy": "policies", "Role": "roles"}
"""The kinds, with their names in the URLs of a Kubernetes API server."""
OLD_API_VERSION = "openfaas.com/v1"
RULE_TEST = "RuleTest"
"""The kind of the documents that only `federation test` reads."""
EVERYTHING = frozenset({"*", "*:*"})
"""The resources that are the whole cluster."""
OPERATORS: Mapping[str, Operator] = {
    **{operator.value: operator for operator in Operator if operator is not Operator.PRINCIPAL},
    **ALIASES,
}
"""Every name that a condition block may have for an operator."""

REFUSALS = (
    *(Reason.UNTRUSTED_ISSUER, Reason.MALFORMED_TOKEN, Reason.MISSING_CLAIM),
    *(Reason.WRONG_AUDIENCE, Reason.WRONG_PARTY, Reason.WRONG_TOKEN_TYPE, Reason.NOT_A_CI_TOKEN),
    *(Reason.NO_ROLE_ADMITS, Reason.EVENT_NOT_ALLOWED, Reason.POLICY_MISSING),
)
"""The reasons that follow from claims and documents alone, so that a rule test can expect them."""


class Written(BaseModel):
    """A map with known fields, as a file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _check_map(cls, value: object, info: ValidationInfo) -> object:
        if is_null(value) or value == {}:
            raise wrong(Code.EMPTY, "is empty")
        if not isinstance(value, dict):
            raise wrong(Code.BAD_VALUE, f"is {what(value)}, not a map")
        if len(value) <= len(cls.model_fields):
            return value
        # Only so many unknown fields are kept as may be reported.
        unknown = [key for key in value if key not in cls.names()]
        surplus = frozenset(unknown[budget_of(info).take(len(unknown)) :])
        return {key: member for key, member in value.items() if key not in surplus}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the fields as files have them."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())


_carried = Field(None, description="Carried and not interpreted.")


class Metadata(Written):
    """The document's name, and what `kubectl get -o yaml` adds to a document."""

    name: Name = Field(description="Unique among the documents of its kind.")
    annotations: Labels | None = _carried
    creation_timestamp: Any = _carried
    deletion_grace_period_seconds: Any = _carried
    deletion_timestamp: Any = _carried
    finalizers: Any = _carried
    generate_name: Any = _carried
    generation: Any = _carried
    labels: Labels | None = _carried
    managed_fields: Any = _carried
    namespace: Text | None = _carried
    owner_references: Any = _carried
    resource_version: Any = _carried
    self_link: Any = _carried
    uid: Any = _carried


_MAY_BE_EMPTY = frozenset({"kid", "alg", "use"})


class PinnedKey(Written):
    """
    One public key. Only the members that say what the key is are kept.

    A JWKS in a document is trusted like the document, so addresses and certificates in it are
    left behind, and a private key is refused loudly.
    """

    model_config = ConfigDict(
        extra="ignore", alias_generator=None, json_schema_extra={"minProperties": 1}
    )

    kty: Text | None = None
    kid: MemberText | None = None
    alg: MemberText | None = None
    use: MemberText | None = None
    crv: Text | None = None
    n: Base64url | None = None
    e: Base64url | None = None
    x: Base64url | None = None
    y: Base64url | None = None
    key_ops: Texts | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_map(cls, value: object, _info: ValidationInfo) -> object:
        value = _json_object(value, "a key")
        if private := sorted(PRIVATE_MEMBERS & value.keys()):
            raise wrong(
                Code.BAD_KEY_MATERIAL,
                f"a private key was put here: it has {', '.join(private)}",
                "pin the public half only, and treat the private key as leaked",
            )
        # Some issuers write null or "" for a member that they could leave out. That is harmless
        # only where the member is not part of the key itself.
        return {
            name: member
            for name, member in value.items()
            if name not in _MAY_BE_EMPTY or not (is_null(member) or member == "")
        }

    @model_validator(mode="after")
    def _check_usable(self) -> PinnedKey:
        # A key that the key ring would skip makes every token that names it fail.
        try:
            parse_key(self.members())
        except ValueError as error:
            message = f"cannot be used: {error}"
            raise wrong(Code.BAD_KEY_MATERIAL, message, self._hint()) from None
        return self

    def _hint(self) -> str:
        if (self.kty, self.n) == ("RSA", None) or (self.kty, self.y) == ("EC", None):
            return 'write the names "n" and "y" in quotes: kubectl and Helm read them as booleans'
        return "remove it, or pin a key that can be used"

    def members(self) -> Mapping[str, object]:
        """Return the members that the document has."""
        return self.model_dump(exclude_none=True)


class Jwks(Written):
    """A JWK set."""

    model_config = ConfigDict(extra="ignore")

    keys: Annotated[list[PinnedKey], Field(min_length=1, max_length=MAX_PINNED_KEYS)]

    @model_validator(mode="before")
    @classmethod
    def _check_map(cls, value: object, _info: ValidationInfo) -> object:
        value = _json_object(value, "a JWKS")
        if "keys" not in value:
            hint = "copy the whole JWKS of the issuer"
            raise wrong(Code.BAD_KEY_MATERIAL, "has no member keys", hint)
        return value


def _json_object(value: object, expected: str) -> dict[str, object]:
    if not isinstance(value, dict):
        hint = "write the object itself, not a string that holds it"
        raise wrong(Code.BAD_KEY_MATERIAL, f"is not {expected}", hint)
    if not value:
        raise wrong(Code.EMPTY, "is empty")
    return value


class IssuerSpec(Written):
    """An issuer whose tokens may be exchanged."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "required": ["jwks"],
                "anyOf": [
                    {"required": ["jwksUri"]},
                    {"required": ["issInternal"]},
                    {"required": ["bearerTokenFile"]},
                ],
            },
            "anyOf": [
                {"required": ["aud"]},
                {"required": ["clients"], "not": {"required": ["authorizedParties"]}},
            ],
        }
    )

    iss: Url = Field(
        description="The issuer's URL, exactly as its tokens have it in `iss`. "
        "`https`; `http` only for loopback hosts."
    )
    aud: Texts | None = Field(
        None,
        description="The audiences that are accepted, compared exactly. May be left out where "
        "`clients` is set.",
    )
    token_expiry: Duration | None = Field(
        None,
        description="The lifetime of tokens minted for this issuer: a Go duration between `1m` "
        "and `24h`. Default `15m`.",
    )
    iss_internal: Url | None = Field(
        None, description="Where discovery and keys are fetched, when that is not at `iss`."
    )
    provider: Annotated[Text, *one_of(PROFILES)] | None = Field(
        None,
        description="The provider whose rules the tokens must fit. The default is the provider "
        "whose issuers include `iss`, else `generic`.",
    )
    jwks_uri: UrlWithQuery | None = Field(
        None, description="Where the keys are fetched, without discovery."
    )
    jwks: Jwks | None = Field(
        None, description="The issuer's public keys, pinned. Nothing is fetched for this issuer."
    )
    ca_bundle: Certificates | None = Field(
        None, description="Certificates in PEM that are trusted for this issuer alone."
    )
    subject_token_use: Annotated[Text, *one_of(("once", "many"))] | None = Field(
        None,
        description="Whether one subject token may be exchanged once or many times. The "
        "default is `once` for every provider but `kubernetes`, and `many` for people's ID tokens "
        "where `clients` is set.",
    )
    bearer_token_file: AbsolutePath | None = Field(
        None,
        description="A file whose content is sent as bearer token when this issuer's discovery "
        "and keys are fetched, and nowhere else.",
    )
    clients: Texts | None = Field(
        None,
        description="OAuth client ids. People's ID tokens for these clients may be exchanged.",
    )
    authorized_parties: Texts | None = Field(
        None,
        description="Where a workload's token has `azp`, it must be one of these.",
    )


class _Block(Written):
    model_config = ConfigDict(json_schema_extra={"minProperties": 1})


# One field for each operator and alias of `policy.conditions`. They cannot be written as a class,
# because two of their names hold a colon.
_OPERATOR_FIELDS: dict[str, Any] = {
    name.replace(":", "_"): (
        (PatternKeys if operator.pattern else Keys) | None,
        Field(None, alias=name),
    )
    for name, operator in OPERATORS.items()
}
Condition: type[_Block] = create_model("Condition", __base__=_Block, **_OPERATOR_FIELDS)


class RoleSpec(Written):
    """The callers that are given certain policies."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["principal"]}, {"required": ["condition"]}]}
    )

    policy: Texts = Field(description="Names of the policies it gives.")
    principal: Keys | None = Field(
        None,
        description="For each `jwt:<claim>` the values it may have. A Role needs this or "
        "`condition`; where it has both, both must hold.",
    )
    condition: Condition | None = Field(  # type: ignore[valid-type]  # made by create_model
        None, description="For each operator, for each key, its values."
    )
    token_expiry: Duration | None = Field(
        None,
        description="The longest life of a token that this Role takes part in: a Go duration "
        "between `1m` and `24h`.",
    )
    effect: Annotated[Text, *one_of(RoleEffect)] | None = Field(
        None,
        description="`Admit`, the default, or `Shadow`: it admits nobody, and audit events name it "
        "where it would have admitted.",
    )


class Statement(Written):
    """One rule of a Policy."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"action": {"items": {"not": {"enum": [*sorted(BROKER_ACTIONS)]}}}}},
                {"properties": {"resource": {"contains": {"enum": [*sorted(EVERYTHING)]}}}},
            ]
        }
    )

    sid: Text = Field(description="The statement's name, unique in its policy. Decisions name it.")
    effect: Annotated[Text, *one_of(Effect)] = Field(
        description="`Allow` or `Deny`. A matching Deny always wins."
    )
    action: Actions = Field(description="Actions, or sets of them.")
    resource: Resources = Field(
        description="`*`, `<namespace>:*` or `<namespace>:<function>`. In either half, `*` stands "
        "for any text, and `${jwt:<claim>}` for a claim of the access token."
    )
    condition: Condition | None = Field(  # type: ignore[valid-type]  # made by create_model
        None, description="When the statement holds, read against the access token's claims."
    )


class PolicySpec(Written):
    """Named statements about what may be done."""

    statement: Annotated[list[Statement], Listed] = Field(
        description="What the policy says, in order."
    )


class _Document(Written):
    api_version: Literal["iam.openfaas.com/v1", "openfaas.com/v1"] = Field(
        description=f"`{API_VERSION}`."
    )
    kind: str
    metadata: Metadata
    status: Any = Field(None, description="What `kubectl get -o yaml` adds. Not read.")


class JwtIssuer(_Document):
    """A document that names an issuer."""

    kind: Literal["JwtIssuer"]
    spec: IssuerSpec


class Policy(_Document):
    """A document that names statements."""

    kind: Literal["Policy"]
    spec: PolicySpec


class Role(_Document):
    """A document that gives policies to callers."""

    kind: Literal["Role"]
    spec: RoleSpec


class Expect(Written):
    """The outcome that a rule test expects. What it does not name may be anything."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    roles: Names | None = Field(
        None, description="Exactly the Roles that admit the token. None if it is empty."
    )
    policies: Names | None = Field(
        None, description="Exactly the policies that the access token has. None if it is empty."
    )
    refusal: Annotated[Text, *one_of(REFUSALS)] | None = Field(
        None, description="The reason why the token is refused."
    )
    shadow_roles: Names | None = Field(
        None,
        description="Exactly the shadow Roles that would admit the token. None if it is empty.",
    )
    allowed: Accesses | None = Field(
        None, description="What the access token may do, each as `ACTION=RESOURCE`."
    )
    denied: Accesses | None = Field(
        None, description="What the access token may not do, each as `ACTION=RESOURCE`."
    )


class RuleTestSpec(Written):
    """A token's claims, and what the documents are expected to make of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [one]} for one in ("sample", "claimsFile", "claims")],
            "not": {"required": ["sample", "claimsFile"]},
        }
    )

    sample: Text | None = Field(
        None, description="A sample token of a provider, such as `github-push-main`."
    )
    claims_file: Text | None = Field(
        None, description="A JSON file with a token's claims, by its path from this file."
    )
    claims: Claims | None = Field(
        None,
        description="The token's claims. Beside a sample or a file they change its claims: an "
        "object is merged, null removes a claim.",
    )
    expect: Expect = Field(description="What must come of it.")


class RuleTest(_Document):
    """A test of the other documents, which `federation test` runs and everything else passes over."""

    kind: Literal["RuleTest"]
    spec: RuleTestSpec


Document: TypeAlias = JwtIssuer | Policy | Role

MODELS: Mapping[str, type[Document]] = {"JwtIssuer": JwtIssuer, "Policy": Policy, "Role": Role}
SPECS: Mapping[str, type[Written]] = {
    "JwtIssuer": IssuerSpec,
    "Policy": PolicySpec,
    "Role": RoleSpec,
}
"""The kinds of documents that decide."""


# JSON Schema


class _Generator(GenerateJsonSchema):
    """JSON Schema without null, defaults and titles of fields."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Leave null out: the loader never yields None, so None only means "not written"."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Leave the default out, for the same reason."""
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, _schema: object) -> bool:
        """Return False: a title would only repeat the name."""
        return False


def schema() -> Schema:
    """Return the JSON Schema of a document: one of the three kinds, a rule test, or a List of them."""
    _, models = models_json_schema(
        [(model, "validation") for model in (*MODELS.values(), RuleTest)],
        schema_generator=_Generator,
    )
    kinds = [{"$ref": f"#/$defs/{kind}"} for kind in (*MODELS, RULE_TEST)]
    listed = {
        "title": "List",
        "description": "What `kubectl get -o yaml` writes.",
        "type": "object",
        "properties": {
            "apiVersion": {"const": "v1"},
            "kind": {"const": "List"},
            "metadata": {},
            "items": {"type": "array", "items": {"oneOf": kinds}},
        },
        "required": ["apiVersion", "kind", "items"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Documents of the federation broker",
        "oneOf": [*kinds, {"$ref": "#/$defs/List"}],
        "$defs": {**models["$defs"], "List": listed},
    }


def text() -> str:
    """Return the schema as `docs/documents.schema.json` holds it."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
