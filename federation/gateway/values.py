"""
Readers for the values of API calls: names, namespaces, images, numbers, times.

A reader takes a value from the request and returns the value to send. Path, query and body use
the same reader for a name, so `../` or `%00` passes in none of them: some upstreams join these
names into paths of files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from federation.gateway.refusals import Malformed

Given = TypeVar("Given")
Read = TypeVar("Read")
Reader = Callable[[object], object]
"""Returns the value to send. Raises ValueError with the rest of a sentence: "must be …"."""

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?")
_IMAGE = re.compile(r"[!-~]{1,4096}")
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_LINES = re.compile(r"-?[0-9]{1,7}")
# Go ignores the case of object keys, also of a few letters beyond ASCII. Two different keys in
# lower-case ASCII can never be the same key to it.
_QUANTITY = re.compile(r"[a-z0-9]+(?:[-./][a-z0-9]+){0,8}")

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_MOST_REPLICAS = 1_000_000

# The log handler of faas-netes takes it for the default namespace (2026): a call that was
# authorized for the one would act in the other.
_KUBE_SYSTEM = "kube-system"


def read(what: str, reader: Callable[[Given], Read], value: Given) -> Read:
    """
    The *value* as *reader* returns it.

    Raises: Malformed with a sentence that begins with *what*.
    """
    try:
        return reader(value)
    except ValueError as error:
        raise Malformed(f"{what} {error}.") from None


def text(value: object) -> str:
    """Any string."""
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004  one kind of error for bad input
    return value


def label(value: object) -> str:
    """An RFC 1123 label, which every namespace's name is."""
    return _spelled(_LABEL, value, "lower-case letters, digits and inner dashes, at most 63")


def namespace(value: object) -> str:
    """The name of a namespace that may hold functions."""
    read_label = label(value)
    if read_label == _KUBE_SYSTEM:
        raise ValueError("must not be kube-system, which holds no functions")
    return read_label


def name(value: object) -> str:
    """The name of a function, a secret or an instance."""
    expected = "letters, digits and inner dashes, underscores or single dots, at most 253"
    return _spelled(_NAME, value, expected)


def image(value: object) -> str:
    """The name of a container image."""
    return _spelled(_IMAGE, value, "the name of an image")


def boolean(value: object) -> bool:
    """A JSON boolean."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004  as above
    return value


def count(value: object) -> int:
    """A number of replicas, as a JSON integer."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_REPLICAS:
        raise ValueError(f"must be a whole number from 0 to {_MOST_REPLICAS}")
    return value


def texts(value: object) -> list[str]:
    """A JSON list of strings."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of strings")
    return value


def names(value: object) -> list[str]:
    """A JSON list of names."""
    return [name(item) for item in texts(value)]


def text_map(value: object) -> dict[str, str]:
    """A JSON object of strings. Its keys are data of any case."""
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("must be an object of strings")
    return value


def quantities(value: object) -> dict[str, str]:
    """Quantities of `memory`, `cpu` and devices such as `nvidia.com/gpu`."""
    given = text_map(value)
    if not all(len(key) <= 100 and _QUANTITY.fullmatch(key) for key in given):
        raise ValueError("must have lower-case keys, such as memory and cpu")
    return given


def truth(value: object) -> str:
    """`true` or `false`, from any spelling that Go's ParseBool reads."""
    if value in _TRUE or value in _FALSE:
        return "true" if value in _TRUE else "false"
    raise ValueError("must be true or false")


def flag(value: object) -> str:
    """`1` or `0`."""
    if value not in {"0", "1"}:
        raise ValueError("must be 0 or 1")
    return text(value)


def lines(value: object) -> str:
    """A number of log lines. The SDK sends -1 for all."""
    return str(int(_spelled(_LINES, value, "a whole number of at most 7 digits")))


def moment(value: object) -> str:
    """An RFC 3339 time."""
    written = _MOMENT.fullmatch(text(value))
    try:
        # Python reads microseconds at most, so the fraction is left out of this check.
        datetime.fromisoformat(written[1] + written[3].replace("Z", "+00:00") if written else "")
    except ValueError:
        raise ValueError("must be a time such as 2026-11-24T08:16:11Z") from None
    return text(value)


def _spelled(pattern: re.Pattern[str], value: object, expected: str) -> str:
    written = text(value)
    if not pattern.fullmatch(written):
        raise ValueError(f"must be {expected}")
    return written
