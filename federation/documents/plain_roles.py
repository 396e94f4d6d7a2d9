"""
Reads Roles of the plain form: a name, policies, and conditions, all of them texts.

Nearly all Roles of a large set are so, and here they take a tenth of the time that the models of
`documents.schema` need. Only a Role that those models accept without a problem is read here, and the
result is the same. Every other document goes to them, so no problem is reported here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from federation.documents.convert import Shared, lines_below
from federation.documents.field_types import LIST_VALUES, MAP_KEYS, NAME, VALUE_CHARS
from federation.documents.model import NO_LINES, Origin, Role
from federation.documents.pauses import Pause, go_on, paced
from federation.documents.pieces import KEY_CHARS, JsonText
from federation.documents.schema import API_VERSION, OPERATORS
from federation.documents.tree import Document, Fields, Place
from federation.policy.conditions import PATTERN_CHARS, Operator, key_path

_NAME = re.compile(NAME)
_SPEC = frozenset({"policy", "principal", "condition"})
_FORMS = 1000
"""At most so many forms are kept: a hostile file could have one for each Role."""

_Spelling = tuple[str, str]
"""The operator and the key of a condition as the document has them; `""` is the principal."""


class _Form(NamedTuple):
    """The compiled form that Roles with the same operators and keys share."""

    conditions: tuple[tuple[Operator, str], ...]
    places: tuple[Place, ...]


class _Written(NamedTuple):
    """The parts of a plain Role's document, before its operators and keys are checked."""

    name: str
    policies: tuple[str, ...]
    spellings: tuple[_Spelling, ...]
    values: list[tuple[str, ...]]
    """Those of each condition."""
    texts: int
    """The number of texts in the document, its keys included."""


@dataclass(slots=True)
class PlainRoles:
    """Reads the plain Roles of one file."""

    path: str
    shared: Shared
    _forms: dict[tuple[_Spelling, ...], _Form] = field(default_factory=dict)

    def of_texts(
        self, texts: Sequence[JsonText | None], pause: Pause = go_on
    ) -> Sequence[Role | None]:
        """
        Return the Role in each of *texts*, None where that is something else.

        They go from step to step together, so that the code of a step stays in the processor's
        cache.
        """
        values = [text and text.plain() for text in paced(texts, pause)]
        written = list(map(_written, paced(values, pause)))
        return list(map(self._of_text, texts, paced(written, pause)))

    def _of_text(self, text: JsonText | None, written: _Written | None) -> Role | None:
        # The parser drops the first of two equal keys. Then some texts are missing.
        if text is None or written is None or 2 * written.texts != text.text.count('"'):
            return None
        return self._role(written, Origin(self.path, text.line, NO_LINES))

    def of_page(self, page: Document) -> Role | None:
        """Return the Role on *page*, None if that is something else."""
        root = page.root
        if page.duplicates or not isinstance(root, Fields):
            return None
        written = _written(root)
        if written is None:
            return None
        below = NO_LINES if page.one_line else lines_below(root, self.shared)
        return self._role(written, Origin(self.path, root.line, below))

    def _role(self, written: _Written, origin: Origin) -> Role | None:
        form = self._forms.get(written.spellings) or self._new_form(written.spellings)
        if form is None:
            return None
        condition = self.shared.condition
        conditions = [
            condition(operator, key, values)
            for (operator, key), values in zip(form.conditions, written.values, strict=True)
        ]
        return Role(
            written.name,
            self.shared.named(written.policies),
            tuple(conditions),
            places=form.places,
            origin=origin,
        )

    def _new_form(self, spellings: tuple[_Spelling, ...]) -> _Form | None:
        form = _form(spellings, self.shared)
        if form is not None and len(self._forms) < _FORMS:
            self._forms[spellings] = form
        return form


def _form(spellings: Iterable[_Spelling], shared: Shared) -> _Form | None:
    """Return the form of a Role with these *spellings*, None if one of them means nothing."""
    conditions: list[tuple[Operator, str]] = []
    places: list[Place] = []
    for spelled, key in spellings:
        operator = OPERATORS.get(spelled) if spelled else Operator.PRINCIPAL
        if operator is None or not _is_key(key):
            return None
        conditions.append((operator, key))
        block = ("condition", spelled) if spelled else ("principal",)
        places.append(("spec", *block, key))
    return _Form(tuple(conditions), shared.shape(places))


def _is_key(key: str) -> bool:
    try:
        key_path(key)
    except ValueError:
        return False
    return len(key) <= KEY_CHARS


def _written(root: object) -> _Written | None:
    """Return what *root* says, None if it has another form."""
    if not isinstance(root, dict) or len(root) != 4 or root.get("kind") != "Role":
        return None
    metadata, spec = root.get("metadata"), root.get("spec")
    if not isinstance(metadata, dict) or len(metadata) != 1 or not isinstance(spec, dict):
        return None
    name, policies, blocks = metadata.get("name"), spec.get("policy"), _blocks(spec)
    named = _texts(policies, VALUE_CHARS)
    if root.get("apiVersion") != API_VERSION or blocks is None or named is None or not all(named):
        return None
    conditions = _conditions(blocks)
    if conditions is None or not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    spellings, values = conditions
    # Four keys of the head, with three values and the key of the name.
    texts = 8 + len(spec) + len(named) + len(blocks) - ("principal" in spec)
    return _Written(name, named, spellings, values, texts + len(values) + sum(map(len, values)))


def _blocks(spec: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the maps of keys in *spec* by operator, None if it holds anything else."""
    # The principal comes first, and no operator is called so.
    blocks = {"": spec["principal"]} if "principal" in spec else {}
    if "condition" in spec:
        condition = spec["condition"]
        if not isinstance(condition, dict) or not condition or "" in condition:
            return None
        blocks |= condition
    return blocks if blocks and spec.keys() <= _SPEC else None


def _conditions(
    blocks: Mapping[str, object],
) -> tuple[tuple[_Spelling, ...], list[tuple[str, ...]]] | None:
    """Return the conditions in *blocks* and their values, None if one has another form."""
    spellings: list[_Spelling] = []
    values: list[tuple[str, ...]] = []
    for operator, keys in blocks.items():
        if not isinstance(keys, dict) or not 0 < len(keys) <= MAP_KEYS:
            return None
        for key, value in keys.items():
            single = isinstance(value, str) and len(value) <= PATTERN_CHARS
            texts = (value,) if single else _texts(value, PATTERN_CHARS)
            if texts is None:
                return None
            spellings.append((operator, key))
            values.append(texts)
    return tuple(spellings), values


def _texts(values: object, most: int) -> tuple[str, ...] | None:
    """Return *values* if they are a list of texts of *most* characters, not too long, else None."""
    if not isinstance(values, list) or not 0 < len(values) <= LIST_VALUES:
        return None
    texts = tuple([value for value in values if isinstance(value, str) and len(value) <= most])
    return texts if len(texts) == len(values) else None
