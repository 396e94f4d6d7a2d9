"""
Assembles parsed files into one catalog, whole or not at all.

Checks that need all documents are made here: names and issuers that are used twice, Roles that
name a missing Policy, and the trust rules. If any document has an error, there is no catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from federation.documents.catalog import Catalog
from federation.documents.codes import Code
from federation.documents.convert import AnyDocument
from federation.documents.model import JwtIssuer, Origin, Policy, Role, field_text
from federation.documents.parse import Parsed
from federation.documents.pauses import Pause, go_on, paced
from federation.documents.rules.lint import LintedRoles, lint
from federation.errors import Problem, Severity
from federation.text import listed, quoted

DOCUMENTS = 100_000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Assembled:
    """The result of assembling a set: a catalog if it has no errors, and all problems."""

    catalog: Catalog | None
    problems: tuple[Problem, ...]
    """Errors and warnings, sorted by file and line."""
    documents: int
    passed_over: tuple[str, ...] = ()
    """A sentence about each file that is another program's."""
    notes: tuple[str, ...] = ()
    """Sentences about what is right, and easily taken for something else."""
    linted: LintedRoles | None = field(default=None, repr=False)
    """The faults of the Roles, if the next set is going to ask for them."""


@dataclass(frozen=True, slots=True)
class Before:
    """Results of an earlier set. They still hold for documents that the new set has too."""

    catalog: Catalog = field(default_factory=Catalog)
    linted: LintedRoles = field(default_factory=LintedRoles)


def assemble(
    files: Iterable[Parsed],
    digest: str = "",
    places: Sequence[str] = (),
    before: Before | None = None,
    pause: Pause = go_on,
) -> Assembled:
    """
    Assemble all documents in *files*, which were looked for at *places*.

    *digest* identifies the content of the files; the catalog carries it. Only with *before* does
    the result remember what the next set can use. *pause* is called before each step.
    """
    collected = _Collected()
    found, passed_over = 0, list[str]()
    for parsed in files:
        found += parsed.found
        passed_over += parsed.passed_over
        collected.problems += parsed.problems
        for document in paced(parsed.documents, pause):
            collected.put(document, whole=True)
        for document in paced(parsed.broken, pause):
            collected.put(document, whole=False)
    linted = None
    if before is not None:
        linted = before.linted.next(paced(collected.roles, pause), collected.issuers)
    problems = [*collected.problems, *_of_the_set(collected, found, places, linted, pause)]
    problems.sort()
    catalog = _catalog(collected, problems, digest, before.catalog if before else None, pause)
    notes = tuple(_notes(collected.roles))
    return Assembled(catalog, tuple(problems), found, tuple(passed_over), notes, linted)


@dataclass(slots=True)
class _Collected:
    """The documents of a set in their order; for each name the first."""

    issuers: dict[str, JwtIssuer] = field(default_factory=dict)
    """By `iss`. Those with errors are included, so that Roles that name them get no error."""
    policies: dict[str, Policy] = field(default_factory=dict)
    roles: list[Role] = field(default_factory=list)
    names: dict[tuple[str, str], AnyDocument] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, document: AnyDocument, *, whole: bool) -> None:
        """Add *document*. Only documents without errors (*whole*) are linted."""
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


def _of_the_set(
    collected: _Collected,
    found: int,
    places: Sequence[str],
    linted: LintedRoles | None,
    pause: Pause,
) -> list[Problem]:
    """Return the problems that only the set as a whole shows."""
    if found > DOCUMENTS:
        message = f"more than {DOCUMENTS:,} documents"
        return [Problem("", 0, Code.FILE_UNREADABLE.value, Severity.ERROR, message)]
    if not found and not any(_is_error(problem) for problem in collected.problems):
        message = "no documents were found"
        hint = "name a file or directory that holds JwtIssuer, Role and Policy documents"
        code = Code.NO_DOCUMENTS.value
        return [
            Problem(place, 0, code, Severity.ERROR, message, hint=hint) for place in places or [""]
        ]
    problems = [
        *_missing_policies(collected, pause),
        *lint(collected.issuers, collected.roles, collected.policies, linted, pause),
    ]
    unreliable = _unreliable_codes(collected.problems)
    return [problem for problem in problems if problem.code not in unreliable]


def _unreliable_codes(problems: Sequence[Problem]) -> frozenset[str]:
    """
    Return the codes that errors in other documents could cause.

    A Policy that seems to be missing may be in a file that could not be read.
    """
    unread = {Code.FILE_UNREADABLE.value, Code.BAD_SYNTAX.value}
    if any(problem.code in unread for problem in problems):
        return frozenset({Code.POLICY_MISSING.value, "T001", "W109"})
    if any(_is_error(problem) and problem.kind == "Role" for problem in problems):
        return frozenset({"W109"})
    return frozenset()


def _missing_policies(collected: _Collected, pause: Pause) -> Iterable[Problem]:
    for role in paced(collected.roles, pause):
        for index, name in enumerate(role.policies):
            if ("Policy", name) not in collected.names:
                message = f"no Policy is called {quoted(name)}"
                place = ("spec", "policy", index)
                yield _problem(role, Code.POLICY_MISSING, place, message, listed(name))


def _notes(roles: Sequence[Role]) -> Iterator[str]:
    """Yield what is of no use yet: shadow Roles, and Policies that only they name."""
    shadow = [role for role in roles if role.shadow]
    if not shadow:
        return
    yield f"shadow Roles, which admit nobody: {_some(role.name for role in shadow)}"
    given = {name for role in roles if not role.shadow for name in role.policies}
    if waiting := {name for role in shadow for name in role.policies} - given:
        yield f"Policies that only shadow Roles name: {_some(waiting)}"


def _some(names: Iterable[str]) -> str:
    """The first of *names* by alphabet, and how many there are besides."""
    known = sorted(names)
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"{', '.join(known[:_SHOWN])}{more}"


def _catalog(
    collected: _Collected,
    problems: Sequence[Problem],
    digest: str,
    before: Catalog | None,
    pause: Pause,
) -> Catalog | None:
    if any(_is_error(problem) for problem in problems):
        return None
    return Catalog(
        issuers=collected.issuers,
        roles=tuple(role for role in collected.roles if not role.shadow),
        shadow_roles=tuple(role for role in collected.roles if role.shadow),
        policies=collected.policies,
        warnings=tuple(problems),
        digest=digest,
        before=before,
        pause=pause,
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
