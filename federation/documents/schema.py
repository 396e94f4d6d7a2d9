"""
The fields of documents as pydantic models: `python -m federation.documents.schema` prints the
JSON Schema.

The models hold what a file says: strings stay strings, and `documents.convert` makes durations,
conditions and resources of them. A field that is not on a model does not exist. Rules that need
two fields or two documents are not here.

Errors of pydantic's own have a message in `documents.messages`. Checks in this module raise a
`PydanticCustomError` whose type is our code. pydantic has no limit on errors, so the checks that
hostile documents can repeat count theirs in a `Budget`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import PydanticCustomError, core_schema

from federation.documents.codes import Code
from federation.documents.model import ACTION_SETS, BROKER_ACTIONS, Effect, RoleEffect
from federation.documents.resources import RESOURCE
from federation.documents.suggest import action_hint
from federation.documents.tree import Bare, Sort, is_null
from federation.documents.values import DURATION, certificates_fault, duration, url_fault
from federation.errors import Reason
from federation.jose.jwk import MAX_PINNED_KEYS, PRIVATE_MEMBERS, parse_key
from federation.policy.conditions import ALIASES, KEY_PREFIX, PATTERN_CHARS, Operator, key_path
from federation.providers.table import PROFILES
from federation.text import did_you_mean, listed, quoted

GROUP, VERSION = "iam.openfaas.com", "v1"
API_VERSION = f"{GROUP}/{VERSION}"
PLURALS: Mapping[str, str] = {"JwtIssuer": "jwtissuers", "Policy": "policies", "Role": "roles"}
"""The kinds, with their names in the URLs of a Kubernetes API server."""
OLD_API_VERSION = "openfaas.com/v1"
RULE_TEST = "RuleTest"
"""The kind of the documents that only `federation test` reads."""
VALUE_CHARS = 4096
LIST_VALUES = 1000
MAP_KEYS = 100
"""The most keys that an operator or a principal may have."""
PEM_CHARS = 1024 * 1024
ERRORS = 1000
"""After this many errors the rest of a document is not checked: it is refused already."""

NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
"""A document's name; Kubernetes has the same rule."""
EVERYTHING = frozenset({"*", "*:*"})
"""The resources that are the whole cluster."""
BASE64URL = r"^[A-Za-z0-9_-]+$"
ABSOLUTE_PATH = r"^/[^\x00-\x1f\x7f]*$"

OPERATORS: Mapping[str, Operator] = {
    **{operator.value: operator for operator in Operator if operator is not Operator.PRINCIPAL},
    **ALIASES,
}
"""Every name that a condition block may have for an operator."""

_BOOLEANS: Mapping[str, str] = {
    **dict.fromkeys(("y", "yes", "on"), "true"),
    **dict.fromkeys(("n", "no", "off"), "false"),
}
"""The words that YAML 1.1 takes for booleans, and how a token has them."""

REFUSALS = (
    *(Reason.UNTRUSTED_ISSUER, Reason.MALFORMED_TOKEN, Reason.MISSING_CLAIM),
    *(Reason.WRONG_AUDIENCE, Reason.WRONG_PARTY, Reason.WRONG_TOKEN_TYPE, Reason.NOT_A_CI_TOKEN),
    *(Reason.NO_ROLE_ADMITS, Reason.EVENT_NOT_ALLOWED, Reason.POLICY_MISSING),
)
"""The reasons that follow from claims and documents alone, so that a rule test can expect them."""

Schema = dict[str, Any]


class Budget:
    """Counts the errors of one document, so that a hostile one cannot fill the memory."""

    def __init__(self) -> None:
        self.left = ERRORS

    def take(self, errors: int) -> int:
        """Count *errors*, and return how many of them may still be reported."""
        taken = min(errors, self.left)
        self.left -= taken
        return taken


def _budget(info: ValidationInfo) -> Budget:
    assert isinstance(info.context, Budget)  # noqa: S101  documents are validated in one place
    return info.context


def _wrong(code: Code, message: str, hint: str = "") -> PydanticCustomError:
    # The message is taken from the context: pydantic fills templates by plain replacement, and
    # a quoted value could hold braces.
    return PydanticCustomError(code.value, "{message}", {"message": message, "hint": hint})


def what(value: object) -> str:
    """Return the type of *value* as a message names it."""
    if isinstance(value, Bare):
        return value.sort.value
    if isinstance(value, str):
        return "a string"
    return "a map" if isinstance(value, dict) else "a list"


# Checks of single values


def _check_within_budget(
    values: object, check: ValidatorFunctionWrapHandler, info: ValidationInfo
) -> object:
    """Check a list, unless the document has more errors already than are reported."""
    budget = _budget(info)
    if not budget.left:
        return []
    try:
        return check(values)
    except ValidationError as error:
        budget.take(error.error_count())
        raise


def _as_list(value: object) -> object:
    """Return a single value as a list of one."""
    if isinstance(value, dict):
        raise _wrong(Code.BAD_VALUE, "is a map, not a value or a list of values")
    return value if isinstance(value, list) else [value]


def _value_text(value: object) -> object:
    """Return a condition's value as text: an integer's digits, `true` or `false`."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Bare):
        raise _wrong(Code.BAD_VALUE, f"is {what(value)}, not a single value")
    match value.sort:
        case Sort.INT:
            return value.text
        case Sort.BOOL:
            return value.text.lower()
        case Sort.NULL:
            raise _wrong(Code.BAD_VALUE, "is null, not a value", "leave it out or write a value")
    shown = quoted(value.text)
    hint = f"quote it: {shown}"
    if meant := _BOOLEANS.get(value.text.lower()):
        # A claim that is a boolean reads as true or false, so the quoted word would never match.
        hint = f"for a claim that is true or false write {quoted(meant)}; for this text {hint}"
    raise _wrong(Code.BAD_VALUE, f"{shown} is {value.sort.value}", hint)


def _check_key(key: str, info: ValidationInfo) -> str:
    try:
        key_path(key)
    except ValueError:
        if not _budget(info).take(1):
            return key
        if key.startswith(KEY_PREFIX):
            message = f"{quoted(key)} names no claim"
            hint = "write jwt:<claim>, or jwt:/a/b where ~ stands as ~0 and / in a name as ~1"
        else:
            message = f"{quoted(key)} has no jwt: before it"
            hint = f"write {quoted(KEY_PREFIX + key)}"
        raise _wrong(Code.BAD_KEY, message, hint) from None
    return key


def _check_label(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) and _budget(info).take(1):
        raise _wrong(Code.BAD_VALUE, "is not a string", "put it in quotes")
    return value if isinstance(value, str) else ""


def _labels(value: object) -> object:
    if is_null(value):
        return {}
    if not isinstance(value, dict):
        raise _wrong(Code.BAD_VALUE, "is not a map")
    return value


def _one_of(choices: Iterable[str]) -> tuple[AfterValidator, WithJsonSchema]:
    known = [str(choice) for choice in choices]

    def check(text: str) -> str:
        if text not in known:
            message = f"{quoted(text)} is not one of {', '.join(known)}"
            raise _wrong(Code.BAD_VALUE, message, did_you_mean(text, known))
        return text

    return AfterValidator(check), WithJsonSchema({"enum": known})


def _check_action(action: str) -> str:
    if action not in ACTION_SETS:
        message = f"{quoted(action)} is not an action"
        raise _wrong(Code.UNKNOWN_ACTION, message, listed(action) or action_hint(action))
    return action


def _duration(value: object) -> timedelta:
    text = value.text if isinstance(value, Bare) else value if isinstance(value, str) else ""
    length = duration(text)
    if length is None:
        shown = f"{quoted(text)} " if isinstance(value, Bare | str) else ""
        hint = "write 90s, 30m or 1h30m"
        raise _wrong(Code.BAD_DURATION, f"{shown}is not a duration", hint)
    if not timedelta(minutes=1) <= length <= timedelta(hours=24):
        raise _wrong(Code.BAD_DURATION, f"{quoted(text)} is not between 1m and 24h")
    return length


def _check_url(url: str, *, query: bool = False) -> str:
    if fault := url_fault(url, query=query):
        hint = "write https://<host>, with a path where needed"
        raise _wrong(Code.BAD_URL, f"{quoted(url)} {fault}", hint)
    return url


def _check_certificates(value: object) -> object:
    pem = value if isinstance(value, str) else ""
    if len(pem) > PEM_CHARS:
        raise _wrong(Code.TOO_LARGE, f"has {len(pem):,} characters; at most {PEM_CHARS:,}")
    if fault := certificates_fault(pem):
        hint = "write the CA's certificates in PEM, after |"
        raise _wrong(Code.BAD_KEY_MATERIAL, f"caBundle {fault}", hint)
    return pem


_INTEGER_CHARS = 64
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]{1,32})?(?:[eE][-+]?[0-9]{1,2})?")


def _claims(value: object) -> object:
    """Return a map of claims as JSON has it, with integers, booleans and null."""
    return _claim(value) if isinstance(value, dict) else value


def _claim(value: object) -> object:
    # The loader bounds nesting, so this recursion is bounded too.
    if isinstance(value, dict):
        return {name: _claim(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_claim(item) for item in value]
    return _scalar(value) if isinstance(value, Bare) else value


def _scalar(value: Bare) -> object:
    match value.sort:
        case Sort.NULL:
            return None
        case Sort.BOOL:
            return value.text.lower() == "true"
        case Sort.INT if len(value.text) <= _INTEGER_CHARS:
            return int(value.text)
        case Sort.FLOAT if _JSON_NUMBER.fullmatch(value.text):
            return float(value.text)
    shown = quoted(value.text)
    unclear = f" is {value.sort.value}" if value.sort is Sort.UNCLEAR else " is no value of JSON"
    raise _wrong(Code.BAD_VALUE, shown + unclear, f"quote it: {shown}")


_URL_SCHEMA: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": VALUE_CHARS,
    "pattern": "^https?://[!-~]+$",
}


def _keys_schema(value_chars: int) -> Schema:
    value = {"type": ["string", "integer", "boolean"], "maxLength": value_chars}
    values = {
        "description": "Any one of these values, or a single one.",
        "oneOf": [
            value,
            {"type": "array", "minItems": 1, "maxItems": LIST_VALUES, "items": value},
        ],
    }
    return {
        "type": "object",
        "minProperties": 1,
        "maxProperties": MAP_KEYS,
        "patternProperties": {"^jwt:([^/]|/([^~]|~[01])*$)": values},
        "additionalProperties": False,
    }


Text: TypeAlias = Annotated[str, Strict(), Field(min_length=1, max_length=VALUE_CHARS)]
Name: TypeAlias = Annotated[Text, Field(pattern=NAME)]
Url: TypeAlias = Annotated[Text, AfterValidator(_check_url), WithJsonSchema(_URL_SCHEMA)]
UrlWithQuery: TypeAlias = Annotated[
    Text, AfterValidator(partial(_check_url, query=True)), WithJsonSchema(_URL_SCHEMA)
]
Duration: TypeAlias = Annotated[
    timedelta,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "maxLength": 64, "pattern": f"^{DURATION}$"}),
]
Certificates: TypeAlias = Annotated[
    str,
    Field(pattern="-----BEGIN CERTIFICATE-----", max_length=PEM_CHARS),
    BeforeValidator(_check_certificates),
]
Action: TypeAlias = Annotated[
    Text, AfterValidator(_check_action), WithJsonSchema({"enum": sorted(ACTION_SETS)})
]
Resource: TypeAlias = Annotated[
    str, Strict(), Field(min_length=1, max_length=PATTERN_CHARS, pattern=RESOURCE)
]
AbsolutePath: TypeAlias = Annotated[Text, Field(pattern=ABSOLUTE_PATH)]
Base64url: TypeAlias = Annotated[Text, Field(pattern=BASE64URL)]
Labels: TypeAlias = Annotated[
    dict[str, Annotated[str, BeforeValidator(_check_label)]],
    BeforeValidator(_labels),
    WithJsonSchema({"type": ["object", "null"], "additionalProperties": {"type": "string"}}),
]

MemberText: TypeAlias = Annotated[
    Text, WithJsonSchema({"type": ["string", "null"], "maxLength": VALUE_CHARS})
]

_Listed = Field(min_length=1, max_length=LIST_VALUES)
_Bounded = WrapValidator(_check_within_budget)
Texts: TypeAlias = Annotated[list[Text], _Listed, _Bounded]
Actions: TypeAlias = Annotated[list[Action], _Listed, _Bounded]
Resources: TypeAlias = Annotated[list[Resource], _Listed, _Bounded]

_Value: TypeAlias = Annotated[str, Field(max_length=VALUE_CHARS), BeforeValidator(_value_text)]
_Pattern: TypeAlias = Annotated[str, Field(max_length=PATTERN_CHARS), BeforeValidator(_value_text)]
_Values: TypeAlias = Annotated[list[_Value], _Listed, BeforeValidator(_as_list), _Bounded]
_Patterns: TypeAlias = Annotated[list[_Pattern], _Listed, BeforeValidator(_as_list), _Bounded]
_Key: TypeAlias = Annotated[str, AfterValidator(_check_key)]
_Keyed = Field(min_length=1, max_length=MAP_KEYS)
Keys: TypeAlias = Annotated[dict[_Key, _Values], _Keyed, WithJsonSchema(_keys_schema(VALUE_CHARS))]
PatternKeys: TypeAlias = Annotated[
    dict[_Key, _Patterns], _Keyed, WithJsonSchema(_keys_schema(PATTERN_CHARS))
]

_KEYS: TypeAdapter[dict[str, list[str]]] = TypeAdapter(Keys)
_PATTERN_KEYS: TypeAdapter[dict[str, list[str]]] = TypeAdapter(PatternKeys)


def readable_values(operator: Operator, key: str, values: object) -> tuple[str, ...] | None:
    """Return the values of one condition if all of it is well-formed, else None."""
    adapter = _PATTERN_KEYS if operator.pattern else _KEYS
    try:
        read = adapter.validate_python({key: values}, context=Budget())
    except ValidationError:
        return None
    return tuple(read[key])


# Models


class Written(BaseModel):
    """A map with known fields, as a file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _check_map(cls, value: object, info: ValidationInfo) -> object:
        if is_null(value) or value == {}:
            raise _wrong(Code.EMPTY, "is empty")
        if not isinstance(value, dict):
            raise _wrong(Code.BAD_VALUE, f"is {what(value)}, not a map")
        if len(value) <= len(cls.model_fields):
            return value
        # Only so many unknown fields are kept as may be reported.
        unknown = [key for key in value if key not in cls.names()]
        surplus = frozenset(unknown[_budget(info).take(len(unknown)) :])
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
            raise _wrong(
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
            raise _wrong(Code.BAD_KEY_MATERIAL, message, self._hint()) from None
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
            raise _wrong(Code.BAD_KEY_MATERIAL, "has no member keys", hint)
        return value


def _json_object(value: object, expected: str) -> dict[str, object]:
    if not isinstance(value, dict):
        hint = "write the object itself, not a string that holds it"
        raise _wrong(Code.BAD_KEY_MATERIAL, f"is not {expected}", hint)
    if not value:
        raise _wrong(Code.EMPTY, "is empty")
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
    provider: Annotated[Text, *_one_of(PROFILES)] | None = Field(
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
    subject_token_use: Annotated[Text, *_one_of(("once", "many"))] | None = Field(
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
    effect: Annotated[Text, *_one_of(RoleEffect)] | None = Field(
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
    effect: Annotated[Text, *_one_of(Effect)] = Field(
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

    statement: Annotated[list[Statement], _Listed] = Field(
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


_Names: TypeAlias = Annotated[list[Text], Field(max_length=LIST_VALUES), _Bounded]
_Accesses: TypeAlias = Annotated[
    Texts,
    WithJsonSchema(
        {
            "type": "array",
            "minItems": 1,
            "maxItems": LIST_VALUES,
            "items": {
                "type": "string",
                "pattern": "^[A-Za-z]+:[A-Za-z]+=.",
                "maxLength": VALUE_CHARS,
            },
        }
    ),
]
Claims: TypeAlias = Annotated[
    dict[str, Any], Field(max_length=LIST_VALUES), BeforeValidator(_claims)
]


class Expect(Written):
    """The outcome that a rule test expects. What it does not name may be anything."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    roles: _Names | None = Field(
        None, description="Exactly the Roles that admit the token. None if it is empty."
    )
    policies: _Names | None = Field(
        None, description="Exactly the policies that the access token has. None if it is empty."
    )
    refusal: Annotated[Text, *_one_of(REFUSALS)] | None = Field(
        None, description="The reason why the token is refused."
    )
    shadow_roles: _Names | None = Field(
        None,
        description="Exactly the shadow Roles that would admit the token. None if it is empty.",
    )
    allowed: _Accesses | None = Field(
        None, description="What the access token may do, each as `ACTION=RESOURCE`."
    )
    denied: _Accesses | None = Field(
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
