"""
What a check found: ok, or a thing that is wrong with one line of advice.

A failed check means that an exchange could not be answered. Everything else that is wrong is a
warning, as the broker itself is then ready, if degraded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from federation.errors import DocumentsRefused, Refusal, SettingsRefused
from federation.text import printable

SPENT = "a token can be spent, and given back"
"""Said of a store that does what an exchange asks of it."""

_SAID_CHARS = 600
_SHOWN_PROBLEMS = 20
_IN_QUOTES = re.compile(r'"(?:[^"\\]|\\.)*"')
_PAGE = re.compile(r"\bdocs/(?=[a-z-]+\.md\b)")


class Word(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    """An exchange could not be answered."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report, and the advice below it if something is wrong."""

    check: str
    word: Word
    said: str
    advice: str = ""


def ok(check: str, said: str) -> Finding:
    """Nothing is wrong with *check*."""
    return Finding(check, Word.OK, printable(said, _SAID_CHARS))


def warn(check: str, said: str, advice: str) -> Finding:
    """Something is wrong with *check*, and exchanges are answered all the same."""
    return Finding(check, Word.WARN, printable(said, _SAID_CHARS), printable(advice, _SAID_CHARS))


def fail(check: str, said: str, advice: str) -> Finding:
    """Something is wrong with *check*, and an exchange could not be answered."""
    return Finding(check, Word.FAIL, printable(said, _SAID_CHARS), printable(advice, _SAID_CHARS))


def split(sentence: str, advice: str) -> tuple[str, str]:
    """
    Return what is wrong, and what to do.

    The broker's own sentences have the remedy after a semicolon. Others get *advice*. One in quotes
    does not count: there stands what strangers wrote, such as a word of a document.
    """
    own = _IN_QUOTES.sub(lambda found: "_" * len(found[0]), sentence)
    end = own.find("; ")
    return (sentence, advice) if end < 0 else (sentence[:end], sentence[end + 2 :] or advice)


def evidence_of(refusal: Refusal) -> str:
    """Return why a store could not decide, from the evidence of its *refusal*."""
    return "; ".join(map(str, refusal.evidence.values())) or "no answer"


def refused_settings(refused: SettingsRefused, check: str = "settings") -> Iterator[Finding]:
    """Yield a failure for each problem of *refused*."""
    for problem in refused.problems:
        for sentence in problem.splitlines():
            yield fail(check, *split(sentence, "see docs/deploy.md, section Settings"))
    if refused.documents:
        yield from refused_documents(DocumentsRefused(refused.documents))


def refused_documents(refused: DocumentsRefused) -> Iterator[Finding]:
    """Yield a failure for each of the first problems of *refused*."""
    for problem in refused.problems[:_SHOWN_PROBLEMS]:
        advice = f"federation explain {problem.code} says more"
        yield fail("documents", *split(str(problem), advice))
    if more := len(refused.problems[_SHOWN_PROBLEMS:]):
        yield fail("documents", f"and {more} more problems", "federation check PATH lists them all")


def with_docs_at(address: str, findings: Iterable[Finding]) -> list[Finding]:
    """Return *findings* whose advice names pages of `docs/` at *address*."""
    return [replace(each, advice=_PAGE.sub(f"{address}/", each.advice)) for each in findings]


def exchanges_answered(findings: Iterable[Finding]) -> bool:
    """Return whether the broker would answer an exchange."""
    return all(finding.word is not Word.FAIL for finding in findings)
