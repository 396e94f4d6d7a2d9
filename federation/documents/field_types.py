"""
The types of the fields of documents: pydantic types that check a value, with its JSON Schema.

Strings stay strings. Checks in this module raise a `PydanticCustomError` whose type is our code.
pydantic has no limit on errors, so the checks that hostile documents can repeat count theirs in a
`Budget`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from federation.documents.codes import Code
from federation.documents.model import ACTION_SETS
from federation.documents.resources import RESOURCE
from federation.documents.suggest import action_hint
from federation.documents.tree import Bare, Sort, is_null
from federation.documents.values import DURATION, certificates_fault, duration, url_fault
from federation.policy.conditions import KEY_PREFIX, PATTERN_CHARS, Operator, key_path
from federation.text import did_you_mean, listed, quoted

VALUE_CHARS = 4096
LIST_VALUES = 1000
MAP_KEYS = 100
"""The most keys that an operator or a principal may have."""
PEM_CHARS = 1024 * 1024
ERRORS = 1000
"""After this many errors the rest of a document is not checked: it is refused already."""

NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
"""A document's name; Kubernetes has the same rule."""
BASE64URL = r"^[A-Za-z0-9_-]+$"
ABSOLUTE_PATH = r"^/[^\x00-\x1f\x7f]*$"

_BOOLEANS: Mapping[str, str] = {
    **dict.fromkeys(("y", "yes", "on"), "true"),
    **dict.fromkeys(("n", "no", "off"), "false"),
}
"""The words that YAML 1.1 takes for booleans, and how a token has them."""

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


def budget_of(info: ValidationInfo) -> Budget:
    """Return the budget of the document that is being validated."""
    assert isinstance(info.context, Budget)  # noqa: S101  documents are validated in one place
    return info.context


def wrong(code: Code, message: str, hint: str = "") -> PydanticCustomError:
    """Return the error to raise for a value, with our code and message."""
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
    budget = budget_of(info)
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
        raise wrong(Code.BAD_VALUE, "is a map, not a value or a list of values")
    return value if isinstance(value, list) else [value]


def _value_text(value: object) -> object:
    """Return a condition's value as text: an integer's digits, `true` or `false`."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Bare):
        raise wrong(Code.BAD_VALUE, f"is {what(value)}, not a single value")
    match value.sort:
        case Sort.INT:
            return value.text
        case Sort.BOOL:
            return value.text.lower()
        case Sort.NULL:
            raise wrong(Code.BAD_VALUE, "is null, not a value", "leave it out or write a value")
    shown = quoted(value.text)
    hint = f"quote it: {shown}"
    if meant := _BOOLEANS.get(value.text.lower()):
        # A claim that is a boolean reads as true or false, so the quoted word would never match.
        hint = f"for a claim that is true or false write {quoted(meant)}; for this text {hint}"
    raise wrong(Code.BAD_VALUE, f"{shown} is {value.sort.value}", hint)


def _check_key(key: str, info: ValidationInfo) -> str:
    try:
        key_path(key)
    except ValueError:
        if not budget_of(info).take(1):
            return key
        if key.startswith(KEY_PREFIX):
            message = f"{quoted(key)} names no claim"
            hint = "write jwt:<claim>, or jwt:/a/b where ~ stands as ~0 and / in a name as ~1"
        else:
            message = f"{quoted(key)} has no jwt: before it"
            hint = f"write {quoted(KEY_PREFIX + key)}"
        raise wrong(Code.BAD_KEY, message, hint) from None
    return key


def _check_label(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) and budget_of(info).take(1):
        raise wrong(Code.BAD_VALUE, "is not a string", "put it in quotes")
    return value if isinstance(value, str) else ""


def _labels(value: object) -> object:
    if is_null(value):
        return {}
    if not isinstance(value, dict):
        raise wrong(Code.BAD_VALUE, "is not a map")
    return value


def one_of(choices: Iterable[str]) -> tuple[AfterValidator, WithJsonSchema]:
    """Return the check that a text is one of *choices*, and its JSON Schema."""
    known = [str(choice) for choice in choices]

    def check(text: str) -> str:
        if text not in known:
            message = f"{quoted(text)} is not one of {', '.join(known)}"
            raise wrong(Code.BAD_VALUE, message, did_you_mean(text, known))
        return text

    return AfterValidator(check), WithJsonSchema({"enum": known})


def _check_action(action: str) -> str:
    if action not in ACTION_SETS:
        message = f"{quoted(action)} is not an action"
        raise wrong(Code.UNKNOWN_ACTION, message, listed(action) or action_hint(action))
    return action


def _duration(value: object) -> timedelta:
    text = value.text if isinstance(value, Bare) else value if isinstance(value, str) else ""
    length = duration(text)
    if length is None:
        shown = f"{quoted(text)} " if isinstance(value, Bare | str) else ""
        hint = "write 90s, 30m or 1h30m"
        raise wrong(Code.BAD_DURATION, f"{shown}is not a duration", hint)
    if not timedelta(minutes=1) <= length <= timedelta(hours=24):
        raise wrong(Code.BAD_DURATION, f"{quoted(text)} is not between 1m and 24h")
    return length


def _check_url(url: str, *, query: bool = False) -> str:
    if fault := url_fault(url, query=query):
        hint = "write https://<host>, with a path where needed"
        raise wrong(Code.BAD_URL, f"{quoted(url)} {fault}", hint)
    return url


def _check_certificates(value: object) -> object:
    pem = value if isinstance(value, str) else ""
    if len(pem) > PEM_CHARS:
        raise wrong(Code.TOO_LARGE, f"has {len(pem):,} characters; at most {PEM_CHARS:,}")
    if fault := certificates_fault(pem):
        hint = "write the CA's certificates in PEM, after |"
        raise wrong(Code.BAD_KEY_MATERIAL, f"caBundle {fault}", hint)
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
    raise wrong(Code.BAD_VALUE, shown + unclear, f"quote it: {shown}")


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

Listed = Field(min_length=1, max_length=LIST_VALUES)
_Bounded = WrapValidator(_check_within_budget)
Texts: TypeAlias = Annotated[list[Text], Listed, _Bounded]
Actions: TypeAlias = Annotated[list[Action], Listed, _Bounded]
Resources: TypeAlias = Annotated[list[Resource], Listed, _Bounded]

_Value: TypeAlias = Annotated[str, Field(max_length=VALUE_CHARS), BeforeValidator(_value_text)]
_Pattern: TypeAlias = Annotated[str, Field(max_length=PATTERN_CHARS), BeforeValidator(_value_text)]
_Values: TypeAlias = Annotated[list[_Value], Listed, BeforeValidator(_as_list), _Bounded]
_Patterns: TypeAlias = Annotated[list[_Pattern], Listed, BeforeValidator(_as_list), _Bounded]
_Key: TypeAlias = Annotated[str, AfterValidator(_check_key)]
_Keyed = Field(min_length=1, max_length=MAP_KEYS)
Keys: TypeAlias = Annotated[dict[_Key, _Values], _Keyed, WithJsonSchema(_keys_schema(VALUE_CHARS))]
PatternKeys: TypeAlias = Annotated[
    dict[_Key, _Patterns], _Keyed, WithJsonSchema(_keys_schema(PATTERN_CHARS))
]

Names: TypeAlias = Annotated[list[Text], Field(max_length=LIST_VALUES), _Bounded]
Accesses: TypeAlias = Annotated[
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
