"""
Parsed files to one catalog, whole or not at all.

Whatever can only be seen with all documents at hand is checked here: names and issuers taken
twice, Roles that name a missing Policy, and the rules of trust. One error anywhere, and there
is no catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from federation.documents.catalog import Catalog
from federation.documents.codes import Code
from federation.documents.model import JwtIssuer, Origin, Policy, Role, field_text
from federation.documents.parse import AnyDocument, Parsed
from federation.documents.rules.lint import lint
from federation.errors import Problem, Severity
from federation.text import quoted

__all__ = ["DOCUMENTS", "Assembled", "assemble"]

DOCUMENTS = 100_000


@dataclass(frozen=True, slots=True)
class Assembled:
    """A set of documents: its catalog if it can be adopted, and all its problems."""

    catalog: Catalog | None
    problems: tuple[Problem, ...]
    """Errors and warnings, by file and line."""
    documents: int


def assemble(files: Iterable[Parsed], digest: str = "") -> Assembled:
    """
    The catalog of all documents in *files*; none where any of them has an error.

    *digest* stands for the content of the files.
    """
    shelf = _Shelf()
    found = 0
    for parsed in files:
        found += parsed.found
        shelf.problems += parsed.problems
        for document in parsed.documents:
            shelf.put(document, whole=True)
        for document in parsed.broken:
            shelf.put(document, whole=False)
    problems = [*shelf.problems, *_of_the_set(shelf, found)]
    problems.sort()
    return Assembled(_catalog(shelf, problems, digest), tuple(problems), found)


@dataclass(slots=True)
class _Shelf:
    """Documents in the order they were found, the first of each name."""

    issuers: dict[str, JwtIssuer] = field(default_factory=dict)
    """By `iss`. Those with errors are here too, so that Roles are not blamed for them."""
    policies: dict[str, Policy] = field(default_factory=dict)
    roles: list[Role] = field(default_factory=list)
    names: dict[tuple[str, str], AnyDocument] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, document: AnyDocument, *, whole: bool) -> None:
        """File *document*; only *whole* ones are linted."""
        if document.name:
            self._claim_name(document)
        match document:
            case JwtIssuer():
                self._put_issuer(document)
            case Policy() if whole:
                self.policies.setdefault(document.name, document)
            case Role() if whole:
                self.roles.append(document)
            case _:
                pass

    def _claim_name(self, document: AnyDocument) -> None:
        first = self.names.setdefault((type(document).__name__, document.name), document)
        if first is not document:
            message = f"the name is taken by the {type(document).__name__} at {_at(first.origin)}"
            self.problems.append(
                _problem(document, Code.NAME_TAKEN, ("metadata", "name"), message, "rename one")
            )

    def _put_issuer(self, issuer: JwtIssuer) -> None:
        if not issuer.iss:
            return
        first = self.issuers.setdefault(issuer.iss, issuer)
        if first is not issuer:
            message = (
                f"{quoted(issuer.iss)} is the iss of JwtIssuer/{first.name} at "
                f"{_at(first.origin)} already"
            )
            hint = "keep one JwtIssuer, with the audiences of both"
            self.problems.append(_problem(issuer, Code.ISS_TAKEN, ("spec", "iss"), message, hint))


def _of_the_set(shelf: _Shelf, found: int) -> list[Problem]:
    """What is wrong with the documents as a set."""
    if found > DOCUMENTS:
        message = f"more than {DOCUMENTS:,} documents"
        return [Problem("", 0, Code.FILE_UNREADABLE.value, Severity.ERROR, message)]
    if not found and not any(_is_error(problem) for problem in shelf.problems):
        message = "no documents were found"
        hint = "name a file or directory that holds JwtIssuer, Role and Policy documents"
        return [Problem("", 0, Code.NO_DOCUMENTS.value, Severity.ERROR, message, hint=hint)]
    problems = [*_missing_policies(shelf), *lint(shelf.issuers, shelf.roles, shelf.policies)]
    blind = _codes_that_cannot_be_told(shelf.problems)
    return [problem for problem in problems if problem.code not in blind]


def _codes_that_cannot_be_told(problems: Sequence[Problem]) -> frozenset[str]:
    """
    The codes that would blame one document for the errors of another.

    Where a file could not be read, nobody knows which documents are missing.
    """
    unread = {Code.FILE_UNREADABLE.value, Code.BAD_SYNTAX.value}
    if any(problem.code in unread for problem in problems):
        return frozenset({Code.POLICY_MISSING.value, "T001", "W109"})
    if any(_is_error(problem) and problem.kind == "Role" for problem in problems):
        return frozenset({"W109"})
    return frozenset()


def _missing_policies(shelf: _Shelf) -> Iterable[Problem]:
    for role in shelf.roles:
        for index, name in enumerate(role.policies):
            if ("Policy", name) not in shelf.names:
                message = f"no Policy is called {quoted(name)}"
                place = ("spec", "policy", index)
                yield _problem(role, Code.POLICY_MISSING, place, message)


def _catalog(shelf: _Shelf, problems: Sequence[Problem], digest: str) -> Catalog | None:
    if any(_is_error(problem) for problem in problems):
        return None
    return Catalog(
        issuers=shelf.issuers,
        roles=tuple(shelf.roles),
        policies=shelf.policies,
        warnings=tuple(problems),
        digest=digest,
    )


def _is_error(problem: Problem) -> bool:
    return problem.severity is Severity.ERROR


def _at(origin: Origin) -> str:
    return f"{origin.path}:{origin.line}"


def _problem(
    document: AnyDocument, code: Code, place: tuple[str | int, ...], message: str, hint: str = ""
) -> Problem:
    return Problem(
        document.origin.path,
        document.origin.line_of(*place),
        code.value,
        Severity.ERROR,
        message,
        type(document).__name__,
        document.name,
        field_text(place),
        hint,
    )
