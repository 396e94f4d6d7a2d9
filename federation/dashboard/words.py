"""
Statements, conditions and refusals in words.

A name or value from outside keeps its spelling; templates mark it up and escape it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from federation.claims import text as claim_text
from federation.documents.model import ACTIONS
from federation.errors import Reason
from federation.jose.strict_json import dumps
from federation.text import printable

_VALUE_CHARS = 400
_TEXT_CHARS = 20_000

_VERBS: Mapping[str, str] = MappingProxyType(
    {
        "Function:List": "list",
        "Function:Get": "inspect",
        "Function:Create": "create",
        "Function:Update": "update",
        "Function:Delete": "delete",
        "Function:Logs": "read the logs of",
        "Function:Scale": "scale",
        "Function:Invoke": "invoke",
        "Secret:List": "list",
        "Secret:Create": "create",
        "Secret:Update": "update",
        "Secret:Delete": "delete",
        "Namespace:List": "list",
        "Namespace:Get": "inspect",
        "Namespace:Create": "create",
        "Namespace:Update": "update",
        "Namespace:Delete": "delete",
    }
)
_THINGS: Mapping[str, str] = MappingProxyType(
    {"Function": "functions", "Secret": "secrets", "Namespace": "namespaces"}
)
_SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "System:*": "see the version of the gateway",
        "System:Info": "see the version of the gateway",
        "Documents:Read": "read the documents in force",
        "Audit:Read": "read the audit trail",
    }
)
_OPERATORS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "principal": ("is", "is one of"),
        "StringEqual": ("is", "is one of"),
        "StringEqualIgnoreCase": ("is, in any case,", "is, in any case, one of"),
        "StringLike": ("is like", "is like one of"),
        "StringNotEqual": ("is there, and is not", "is there, and is none of"),
        "StringNotLike": ("is there, and is not like", "is there, and is like none of"),
        "ForAnyValue:StringEqual": ("holds", "holds one of"),
        "ForAnyValue:StringLike": ("holds one like", "holds one like one of"),
    }
)


def actions_in_words(actions: Sequence[str]) -> list[str]:
    """`list, inspect and scale functions`, one phrase for each kind of thing."""
    phrases = []
    if set(actions) >= ACTIONS or "*" in actions:
        return ["do everything"]
    for kind, things in _THINGS.items():
        known = [action for action in _VERBS if action.startswith(f"{kind}:")]
        if f"{kind}:*" in actions or all(action in actions for action in known):
            phrases.append(f"do everything with {things}")
        elif verbs := [_VERBS[action] for action in known if action in actions]:
            phrases.append(f"{_listed(verbs)} {things}")
    phrases += [sentence for action, sentence in _SENTENCES.items() if action in actions]
    told = {*_VERBS, *_SENTENCES, *(f"{kind}:*" for kind in _THINGS)}
    phrases += [action for action in actions if action not in told]
    return phrases


def resource_in_words(resource: str) -> str:
    """`everywhere`, `in the namespace dev`, `on the function figlet in dev`."""
    namespace, colon, name = resource.partition(":")
    if not colon:
        return "everywhere" if resource == "*" else f"on {resource}"
    if namespace == "*":
        inside = "in every namespace"
    elif "*" in namespace or "${" in namespace:
        inside = f"in the namespaces like {namespace}"
    else:
        inside = f"in the namespace {namespace}"
    if name == "*":
        return inside
    like = "the names like" if "*" in name or "${" in name else "the name"
    return f"{inside}, for {like} {name}"


def operator_in_words(operator: str, count: int) -> str:
    """`is one of` for `StringEqual` with several values; an operator nobody knows as it is."""
    one, several = _OPERATORS.get(operator, (operator, operator))
    return one if count == 1 else several


def claim_name(key: str) -> str:
    """The claim that a condition key names, without `jwt:`."""
    return key.removeprefix("jwt:")


def value_in_words(value: object) -> str:
    """A claim on one line; `(absent)` or `(empty)` where there would be nothing to see."""
    if value is None:
        return "(absent)"
    if value == "":
        return "(empty)"
    text = claim_text(value)
    return printable(json_text(value) if text is None else text, _VALUE_CHARS)


def json_text(value: object) -> str:
    """*value* as JSON on one line."""
    return dumps(value).decode("utf-8", "replace")


def several_lines(text: str, most: int = _TEXT_CHARS) -> str:
    """*text* with its line ends, at most *most* characters, and nothing that cannot be seen."""
    lines = text[:most].expandtabs(4).splitlines()
    shown = "\n".join(map(printable, lines))
    return shown + "\n(The rest is not shown.)" if len(text) > most else shown


def reason_in_words(reason: str | None) -> str:
    """The sentence of a refusal's reason, empty for an unknown reason."""
    try:
        return Reason(reason or "").sentence
    except (ValueError, KeyError):
        return ""


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
