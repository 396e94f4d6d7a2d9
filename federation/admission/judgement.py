"""
Judges one object before it is kept: its own errors refuse it, everything else is a warning.

An error is the object's own if no other object could cure it. A Role may come before its Policy and
its JwtIssuer, and the new name of a JwtIssuer before the old one is deleted, so these are warnings:
the order in which objects are applied must not matter. The object's status says what is in force.

A Role whose JwtIssuer is not there yet is judged all the same where its `iss` says which provider
it is, as that of github.com does. Else a Role that admits strangers would pass by coming first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from federation.documents.catalog import role_issuers
from federation.documents.codes import Code
from federation.documents.convert import AnyDocument
from federation.documents.model import JwtIssuer, Policy, Role, field_text
from federation.documents.parse import Parsed
from federation.documents.rules.lint import lint
from federation.errors import Problem, Severity
from federation.providers.table import PROFILES, known_provider
from federation.text import quoted

_NO_ISSUER = "T001"
_UNUSED = "W109"
_UNKNOWN_EXPIRY = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Judgement:
    """The errors and warnings about an object. It is refused if it has *errors*."""

    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Judgement:
        """Sort *problems* by their severity."""
        errors: list[Problem] = []
        warnings: list[Problem] = []
        for problem in problems:
            (errors if problem.severity is Severity.ERROR else warnings).append(problem)
        return cls(tuple(errors), tuple(warnings))


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The other objects that an object is compared with."""

    issuers: Mapping[str, JwtIssuer]
    """The JwtIssuers in force, by `iss`, without the object itself."""
    missing_policies: Collection[str] = ()
    """Those Policies that the object names and that do not exist."""


def judge(parsed: Parsed, neighbours: Neighbours) -> Judgement:
    """Judge the one object in *parsed*."""
    if not parsed.documents:
        return Judgement.of(parsed.problems)
    (document,) = parsed.documents
    return Judgement.of([*parsed.problems, *_of_rules(document, neighbours)])


def issuers_needed(parsed: Parsed) -> bool:
    """Return whether the JwtIssuers of the namespace bear on the object in *parsed*."""
    return bool(parsed.documents) and not isinstance(parsed.documents[0], Policy)


def policies_needed(parsed: Parsed) -> tuple[str, ...]:
    """The names of the Policies that the object in *parsed* names."""
    document = parsed.documents[0] if parsed.documents else None
    return tuple(dict.fromkeys(document.policies)) if isinstance(document, Role) else ()


def _of_rules(document: AnyDocument, neighbours: Neighbours) -> Iterator[Problem]:
    match document:
        case JwtIssuer():
            yield from lint({document.iss: document}, (), {})
            yield from _same_iss(document, neighbours.issuers)
        case Policy():
            # No Role uses a Policy that comes before its Role.
            yield from (p for p in lint({}, (), {document.name: document}) if p.code != _UNUSED)
        case Role():
            yield from _of_role(document, neighbours.issuers)
            yield from _missing_policies(document, neighbours.missing_policies)


def _of_role(role: Role, issuers: Mapping[str, JwtIssuer]) -> Iterator[Problem]:
    named = role_issuers(role)
    found = _linted(role, issuers)
    if named and not named & issuers.keys():
        # The other rules read the provider's facts, and nothing says yet which provider it is.
        found = [_as_warning(problem) for problem in found if problem.code == _NO_ISSUER]
    yield from found
    if expected := _expected(named - issuers.keys()):
        told = {(problem.code, problem.field) for problem in found}
        for problem in _linted(role, {**issuers, **expected}):
            if problem.severity is Severity.ERROR and (problem.code, problem.field) not in told:
                yield problem


def _linted(role: Role, issuers: Mapping[str, JwtIssuer]) -> list[Problem]:
    found = lint(issuers, (role,), {})
    return [problem for problem in found if (problem.kind, problem.name) == ("Role", role.name)]


def _expected(named: Iterable[str]) -> Mapping[str, JwtIssuer]:
    """The JwtIssuers to come whose provider their `iss` tells."""
    providers = {iss: known_provider(iss) for iss in named}
    return {
        iss: JwtIssuer("", iss, (), provider, _UNKNOWN_EXPIRY, PROFILES[provider].single_use)
        for iss, provider in providers.items()
        if provider is not None
    }


def _missing_policies(role: Role, missing: Collection[str]) -> Iterator[Problem]:
    for index, name in enumerate(role.policies):
        if name in missing:
            message = (
                f"no Policy is called {quoted(name)} yet; until there is one, this Role refuses "
                "whom it would admit"
            )
            yield _warning(role, Code.POLICY_MISSING, ("spec", "policy", index), message)


def _same_iss(issuer: JwtIssuer, others: Mapping[str, JwtIssuer]) -> Iterator[Problem]:
    other = others.get(issuer.iss)
    if other is not None and other.name != issuer.name:
        message = (
            f"{quoted(issuer.iss)} is the iss of JwtIssuer/{other.name} already, and the older "
            "object is the one in force"
        )
        hint = "keep one JwtIssuer, with the audiences of both"
        yield _warning(issuer, Code.ISS_TAKEN, ("spec", "iss"), message, hint)


def _as_warning(problem: Problem) -> Problem:
    return replace(problem, severity=Severity.WARNING)


def _warning(
    document: AnyDocument, code: Code, place: tuple[str | int, ...], message: str, hint: str = ""
) -> Problem:
    return Problem(
        document.origin.path,
        0,
        code.value,
        Severity.WARNING,
        message,
        type(document).__name__,
        document.name,
        field_text(place),
        hint,
    )
