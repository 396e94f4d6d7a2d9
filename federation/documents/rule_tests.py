"""
Rule tests: documents that say what the other documents must make of a token.

They decide nothing, so everything but `federation test` passes over them. A rule test is taken
whole or not at all, as other documents are: a misspelt field would make a test that tests nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from federation.documents import convert, field_types, schema
from federation.documents.asked import access_in
from federation.documents.codes import Code
from federation.documents.messages import Complaint, Report, complaints
from federation.documents.model import ACTIONS, Origin
from federation.documents.parse import is_rule_test, pages
from federation.documents.tree import Document, Fields
from federation.errors import Problem, Reason
from federation.policy.permissions import Access
from federation.text import printable

_NAME_CHARS = 253
_TIMES: Mapping[str, object] = {"iat": 0, "exp": 300}
"""The times of a token whose claims a test writes out. No test reads a clock."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The outcome that a test expects. None means that it may be anything."""

    roles: frozenset[str] | None = None
    policies: frozenset[str] | None = None
    refusal: Reason | None = None
    shadow_roles: frozenset[str] | None = None
    allowed: tuple[Access, ...] = ()
    denied: tuple[Access, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleTest:
    """A token's claims, and what is expected of them."""

    name: str
    expected: Expected
    sample: str | None = None
    """The sample token that the claims begin with."""
    claims_file: str | None = None
    """The path, from the test's file, of the file that the claims begin with."""
    changes: Mapping[str, object] = field(default_factory=dict)
    origin: Origin = field(default=Origin(), compare=False, repr=False)

    def claims(self, base: Mapping[str, object] | None) -> dict[str, Any]:
        """Return the token's claims. *base* is its sample or file, None if it has neither."""
        return whole(self.changes) if base is None else merged(base, self.changes)


def whole(claims: Mapping[str, object]) -> dict[str, Any]:
    """Return *claims* that a test writes out, with times if they have none."""
    return merged(_TIMES, claims)


def merged(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, Any]:
    """Return *base* with *changes*: objects are merged, and null removes (RFC 7396)."""
    result = dict(base)
    for name, change in changes.items():
        if change is None:
            result.pop(name, None)
        elif isinstance(change, dict):
            before = result.get(name)
            result[name] = merged(before if isinstance(before, dict) else {}, change)
        else:
            result[name] = change
    return result


def rule_tests(path: str, data: bytes) -> tuple[list[RuleTest], list[Problem], int]:
    """Return the rule tests in *data*, the file *path*; every problem; and how many tests it has."""
    tests: list[RuleTest] = []
    problems: list[Problem] = []
    found = 0
    for page in pages(path, data):
        if not isinstance(page, Document) or not is_rule_test(page):
            continue  # `check` says what is wrong with it
        found += 1
        assert isinstance(page.root, Fields)  # noqa: S101  it has a kind
        report = Report(path)
        test = _read(page, page.root, report)
        problems += report.problems
        if test is not None and not report.errors:
            tests.append(test)
    return tests, problems, found


def at_fault(test: RuleTest, place: tuple[str | int, ...], message: str, hint: str = "") -> Problem:
    """Return the problem that the field at *place* of *test* names something that does not exist."""
    report = Report(test.origin.path)
    report.kind, report.name = schema.RULE_TEST, test.name
    complaint = Complaint(place, Code.BAD_VALUE, message, hint)
    report.add(complaint, test.origin.line_of(*place))
    return report.problems[0]


def _read(page: Document, root: Fields, report: Report) -> RuleTest | None:
    """Return the test on *page*, None if it cannot be read. Its problems are added to *report*."""
    metadata = root.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Fields) else None
    report.kind = schema.RULE_TEST
    report.name = printable(name, _NAME_CHARS) if isinstance(name, str) else ""
    for place, line in page.duplicates:
        report.add(Complaint(place, Code.DUPLICATE_KEY, "stands here a second time"), line)
    try:
        written = schema.RuleTest.model_validate(root, context=field_types.Budget())
    except ValidationError as error:
        for complaint in complaints(error, schema.RULE_TEST, root):
            report.add_at(complaint, root)
        return None
    for complaint in _contradictions(written.spec):
        report.add_at(complaint, root)
    expect = written.spec.expect
    expected = Expected(
        roles=None if expect.roles is None else frozenset(expect.roles),
        policies=None if expect.policies is None else frozenset(expect.policies),
        refusal=None if expect.refusal is None else Reason(expect.refusal),
        shadow_roles=None if expect.shadow_roles is None else frozenset(expect.shadow_roles),
        allowed=_accesses("allowed", expect.allowed, report, root),
        denied=_accesses("denied", expect.denied, report, root),
    )
    return RuleTest(
        written.metadata.name,
        expected,
        written.spec.sample,
        written.spec.claims_file,
        written.spec.claims or {},
        Origin(report.path, root.line, convert.lines_below(root, convert.Shared())),
    )


def _contradictions(spec: schema.RuleTestSpec) -> Iterator[Complaint]:
    if spec.sample and spec.claims_file:
        message = "stands beside sample, and a token begins with one of them"
        yield Complaint(("spec", "claimsFile"), Code.BAD_VALUE, message, "remove one")
    if not (spec.sample or spec.claims_file or spec.claims):
        message = "names no token"
        hint = "write sample, claimsFile or claims"
        yield Complaint(("spec",), Code.MISSING_FIELD, message, hint)
    expect = spec.expect
    if expect.refusal:
        for name, names in (
            *(("roles", expect.roles), ("policies", expect.policies), ("allowed", expect.allowed)),
        ):
            if names:
                message = "is expected of a token that is expected to be refused"
                yield Complaint(("spec", "expect", name), Code.BAD_VALUE, message, "remove one")


def _accesses(
    name: str, texts: Sequence[str] | None, report: Report, root: Fields
) -> tuple[Access, ...]:
    accesses: list[Access] = []
    for index, text in enumerate(texts or ()):
        try:
            accesses.append(access_in(text))
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            known = text.partition("=")[0] in ACTIONS or "=" not in text
            code = Code.BAD_RESOURCE if known else Code.UNKNOWN_ACTION
            report.add_at(Complaint(("spec", "expect", name, index), code, message, hint), root)
    return tuple(accesses)
