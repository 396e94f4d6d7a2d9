"""
For `federation who-can`: which values of a resource's variables reach an access.

An Allow asks which values a token must have, a Deny how far the known values decide. A search with
many possible answers is given up, and then nothing is said of the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product

from federation.documents.model import INVOKE, LIST_NAMESPACES, Effect, Statement
from federation.documents.resources import Pieces, Resource, Variable, usable
from federation.policy.conditions import Condition, Operator, ascii_lower
from federation.policy.permissions import Access
from federation.policy.possible import Held, Values

_STEPS = 20_000
_COMBINATIONS = 1000
_LONGEST_VALUE = 63
_SHOWN = 20


class TooMany(Exception):
    """There are more ways to fill the variables than are looked at."""


def covers(resource: Resource, access: Access) -> bool:
    """Return whether *resource*, with `*` for each variable, covers *access*."""
    by_case = resource.covers_call if access.action == INVOKE else resource.covers
    return by_case(access.namespace, access.name)


def could_settle(statement: Statement, resource: Resource, access: Access) -> bool:
    """Return whether *resource*, of *statement*, could settle *access* for some token."""
    taking = statement.effect is Effect.DENY
    if access.is_list_of_namespaces and not taking:
        return True  # a part of the list is enough
    return covers(resource.at_most(taking=taking), access)


def demanded(statement: Statement, access: Access) -> list[tuple[Condition, ...]]:
    """
    Return what a token must say so that a resource of the Allow *statement* reaches *access*.

    Each is one way, as conditions of which all must hold; one without conditions demands nothing.
    Raises: TooMany.
    """
    about = [resource for resource in statement.resources if covers(resource, access)]
    if any(not resource.variables for resource in about):
        return [()]
    search = _Search()
    one: dict[str, dict[str, None]] = {}
    several: dict[tuple[Condition, ...], None] = {}
    for resource in about:
        if not all(variable.possible for variable in resource.variables):
            continue
        for found in search.fillings(resource, access):
            if len(found) == 1:
                ((key, value),) = found.items()
                one.setdefault(key, {})[value] = None
            else:
                several[tuple(_equal(key, (value,)) for key, value in sorted(found.items()))] = None
    ways = [(_equal(key, tuple(values)),) for key, values in one.items()]
    return [*ways, *several]


def parts_demanded(statement: Statement) -> list[tuple[tuple[Condition, ...], list[Resource]]]:
    """
    Return the resources of the Allow *statement* that are a part of the list of namespaces.

    They are beside what a token must say so that they count: any value for each of the variables.
    """
    found: dict[tuple[Condition, ...], list[Resource]] = {}
    for resource in statement.resources:
        if all(variable.possible for variable in resource.variables):
            keys = sorted({variable.key for variable in resource.variables})
            said = tuple(Condition(Operator.STRING_LIKE, key, ("*",)) for key in keys)
            found.setdefault(said, []).append(resource)
    return list(found.items())


def parts_asked(resources: Iterable[Resource], values: Values) -> Iterator[tuple[Access, Values]]:
    """
    Yield the parts of the list of namespaces that the gateway asks about for *resources* of an Allow.

    Known *values* are in place of their variables; each part is beside those that make it.
    """
    for resource in resources:
        for text, given in _texts(resource, values, taking=False):
            made = {key: (value,) for key, value in given.items() if value is not None}
            yield Access(LIST_NAMESPACES, *Resource(text).halves), {**values, **made}


def _equal(key: str, values: tuple[str, ...]) -> Condition:
    return Condition(Operator.STRING_EQUAL, key, values)


@dataclass(slots=True)
class _Search:
    """Fills variables so that a resource covers an access, within a number of steps."""

    left: int = field(default=_STEPS)

    def fillings(self, resource: Resource, access: Access) -> Iterator[dict[str, str]]:
        """Yield the values of the variables, by key. The same may come more than once."""
        asked = (access.namespace, access.name)
        namespace, name = resource.pieces
        if access.action == INVOKE:
            asked = (ascii_lower(asked[0]), ascii_lower(asked[1]))
            namespace, name = map(_lowered, (namespace, name))
        for bound in self._half(namespace, asked[0], {}):
            yield from self._half(name, asked[1], bound)

    def _half(self, pieces: Pieces, text: str, bound: dict[str, str]) -> Iterator[dict[str, str]]:
        self.left -= 1
        if self.left < 0:
            raise TooMany
        if not pieces:
            if not text:
                yield bound
            return
        first, rest = pieces[0], pieces[1:]
        if isinstance(first, Variable):
            yield from self._variable(first, rest, text, bound)
        elif "*" not in first:
            if text.startswith(first):
                yield from self._half(rest, text[len(first) :], bound)
        else:
            before, _, after = first.partition("*")
            if text.startswith(before):
                left = (after.lstrip("*"), *rest) if after.lstrip("*") else rest
                # The last star of a half takes the rest.
                begin = len(text) if not left else len(before)
                for start in range(begin, len(text) + 1):
                    yield from self._half(left, text[start:], bound)

    def _variable(
        self, variable: Variable, rest: Pieces, text: str, bound: dict[str, str]
    ) -> Iterator[dict[str, str]]:
        known = bound.get(variable.key)
        longest = min(_LONGEST_VALUE, len(text))
        for length in range(1, longest + 1) if known is None else (len(known),):
            value = text[:length]
            if value == known or (known is None and usable(value)):
                yield from self._half(rest, text[length:], {**bound, variable.key: value})


def _lowered(half: Pieces) -> Pieces:
    return tuple(ascii_lower(piece) if isinstance(piece, str) else piece for piece in half)


def taken(deny: Statement, access: Access, values: Values) -> Held:
    """Return how far a resource of *deny* reaches *access* for tokens with *values*."""
    about = [
        resource for resource in deny.resources if covers(resource.at_most(taking=True), access)
    ]
    if any(not resource.variables for resource in about):
        return Held.ALWAYS
    keys = {variable.key: variable for resource in about for variable in resource.variables}
    known = {key: told for key, v in keys.items() if (told := _known(v, values)) is not None}
    choices = [
        dict(zip(known, each, strict=True))
        for each in islice(product(*known.values()), _COMBINATIONS + 1)
    ]
    if len(choices) > _COMBINATIONS:
        return Held.SOMETIMES
    if not any(_reaches(r, access, each, unknown=True) for each in choices for r in about):
        return Held.NEVER
    certain = all(
        any(_reaches(resource, access, each, unknown=False) for resource in about)
        for each in choices
    )
    return Held.ALWAYS if certain else Held.SOMETIMES


def _known(variable: Variable, values: Values) -> Sequence[str | None] | None:
    """Return the only values that *variable* can have, None if they are not known."""
    if not variable.possible:
        return (None,)
    told = values.get(variable.key) if variable.copied else None
    return None if told is None else list(dict.fromkeys(map(usable, told)))


def _reaches(
    resource: Resource, access: Access, known: Mapping[str, str | None], *, unknown: bool
) -> bool:
    """Return whether *resource* of a Deny reaches *access*; *unknown* is said of a half not known."""
    halves = []
    for half in resource.pieces:
        values = [known.get(p.key, "") if isinstance(p, Variable) else p for p in half]
        if None in values:
            halves.append("*")
        elif "" not in values:
            halves.append("".join(map(str, values)))
        elif unknown:
            halves.append("*")
        else:
            return False
    return covers(Resource(":".join(halves)), access)


def as_far_as_known(statement: Statement, values: Values) -> list[str]:
    """
    Return the resources of *statement* for tokens with *values*, with values for variables.

    A variable that is not known is left as it is written. There are few at most.
    """
    found: dict[str, None] = {}
    for resource in statement.resources:
        for text, _ in _texts(resource, values, taking=statement.effect is Effect.DENY):
            found[text] = None
            if len(found) == _SHOWN:
                return [*found, "…"]
    return list(found)


def _texts(
    resource: Resource, values: Values, *, taking: bool
) -> Iterator[tuple[str, Mapping[str, str | None]]]:
    """Yield the texts of *resource* with known values for variables, each beside its values."""
    keys = {variable.key: variable for variable in resource.variables}
    known = {key: told for key, v in keys.items() if (told := _known(v, values)) is not None}
    if not known:
        yield resource.text, {}
        return
    for each in islice(product(*known.values()), _COMBINATIONS):
        given = dict(zip(known, each, strict=True))
        halves = [_text(half, given) for half in resource.pieces]
        if taking or None not in halves:
            yield ":".join("*" if half is None else half for half in halves), given


def _text(half: Pieces, given: Mapping[str, str | None]) -> str | None:
    texts = [given.get(p.key, p.written) if isinstance(p, Variable) else p for p in half]
    return None if None in texts else "".join(map(str, texts))
