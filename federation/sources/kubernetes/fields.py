"""Fields of the JSON that an API server sent. Anything may stand in any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Raw: TypeAlias = Mapping[str, Any]
"""An object as the API server sent it."""


def mapping(value: object) -> Raw:
    """Return *value* if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(raw: Raw, name: str) -> str:
    """Return the field *name* of *raw* if it is a text, else an empty one."""
    value = raw.get(name)
    return value if isinstance(value, str) else ""
