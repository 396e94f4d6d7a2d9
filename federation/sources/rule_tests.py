"""
Reads rule tests from files, and the claims that they begin with.

The files are those of the documents. A test may name a file of claims beside it, and none outside
of the given folder: in somebody else's pull request, the name can lead anywhere, and a failed test
shows what the file holds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from federation.claims import UnverifiedClaims
from federation.documents.codes import Code
from federation.documents.model import Origin
from federation.documents.rule_tests import RuleTest, at_fault, rule_tests
from federation.documents.schema import RULE_TEST
from federation.errors import Problem, Severity
from federation.jose import strict_json
from federation.sources.files import contents
from federation.text import nearest, quoted

_CLAIMS_BYTES = 1024 * 1024
_SAMPLES = (
    Path(__file__).parents[1] / "samples",
    Path(__file__).parents[2] / "tests" / "vectors" / "claims",
)
"""In the package, and beside it in a checkout."""


@dataclass(slots=True)
class RuleTests:
    """The tests in some files, each with its token's claims."""

    tests: list[tuple[RuleTest, UnverifiedClaims]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    found: int = 0
    """The number of tests, those with errors included."""


def load_rule_tests(paths: Sequence[Path]) -> RuleTests:
    """Read every rule test in *paths*. Files that cannot be read are left to `files.load`."""
    loaded, bases, seen = RuleTests(), _Bases(), set[str]()
    names: dict[str, Origin] = {}
    for root in paths:
        for path, data in contents([root])[0]:
            real = os.path.realpath(path)
            if not _may_have_tests(data) or real in seen:
                continue
            seen.add(real)
            tests, problems, found = rule_tests(path, data)
            loaded.found += found
            loaded.problems += problems
            for test in tests:
                _add(loaded, test, bases.of(test, _root(root)), names)
    loaded.problems.sort()
    return loaded


def _may_have_tests(data: bytes) -> bool:
    """Return False if *data* surely has no test. The kind may be written with escapes."""
    return RULE_TEST.encode() in data or b"\\" in data


def sample_names() -> list[str]:
    """Return the names of the sample tokens."""
    return sorted(path.stem for place in _SAMPLES for path in place.glob("*.json"))


def _add(
    loaded: RuleTests,
    test: RuleTest,
    base: Mapping[str, object] | Problem | None,
    names: dict[str, Origin],
) -> None:
    first = names.setdefault(test.name, test.origin)
    if first is not test.origin:
        loaded.problems.append(
            Problem(
                test.origin.path,
                test.origin.line_of("metadata", "name"),
                Code.NAME_TAKEN.value,
                Severity.ERROR,
                f"the name is taken by the {RULE_TEST} at {first.path}:{first.line}",
                RULE_TEST,
                test.name,
                "metadata.name",
                "rename one",
            )
        )
    elif isinstance(base, Problem):
        loaded.problems.append(base)
    else:
        loaded.tests.append((test, UnverifiedClaims(test.claims(base))))


def _root(path: Path) -> str:
    """Return the folder that files of claims must be in, without links."""
    real = os.path.realpath(path)
    return real if Path(real).is_dir() else os.path.dirname(real)  # noqa: PTH120  text, as realpath's


class _Bases:
    """The claims that tests begin with, each file read once."""

    def __init__(self) -> None:
        self._samples: dict[str, Mapping[str, object]] = {}
        self._files: dict[str, Mapping[str, object]] = {}
        """By the path without links."""

    def of(self, test: RuleTest, root: str) -> Mapping[str, object] | Problem | None:
        """Return the claims that *test* begins with, None if it names none, or what is wrong."""
        if test.sample is not None:
            return self._sample(test, test.sample)
        if test.claims_file is not None:
            return self._file(test, test.claims_file, root)
        return None

    def _sample(self, test: RuleTest, name: str) -> Mapping[str, object] | Problem:
        if name not in self._samples:
            known = sample_names()
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean {near}?" if near else "docs/providers.md lists them"
                message = f"no sample token is called {quoted(name)}"
                return at_fault(test, ("spec", "sample"), message, hint)
            files = (place / f"{name}.json" for place in _SAMPLES)
            data = next(file for file in files if file.is_file()).read_bytes()
            self._samples[name] = strict_json.loads_object(data)
        return self._samples[name]

    def _file(self, test: RuleTest, name: str, root: str) -> Mapping[str, object] | Problem:
        place = ("spec", "claimsFile")
        try:
            real = os.path.realpath(Path(test.origin.path).parent / name)
            if os.path.commonpath([root, real]) != root:
                message = f"{quoted(name)} leads out of the given folder; it is not read"
                hint = "put the file beside the test"
                return at_fault(test, place, message, hint)
            if real not in self._files:
                self._files[real] = strict_json.loads_object(_read(real))
        except OSError as error:
            message = f"{quoted(name)} cannot be read: {error.strerror or error}"
            return at_fault(test, place, message)
        except ValueError:  # its sentence could quote the file, which may hold a token
            message = f"{quoted(name)} is not a JSON object of claims"
            hint = "write what federation claims prints, and never a token"
            return at_fault(test, place, message, hint)
        return self._files[real]


def _read(path: str) -> bytes:
    """Return what the regular file *path* holds. Raises: OSError or ValueError if it is another."""
    # A link may have been put in the place of the file since; O_NONBLOCK: opening a pipe would wait.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise ValueError("not a regular file")
        data = opened.read(_CLAIMS_BYTES + 1)
    if len(data) > _CLAIMS_BYTES:
        raise ValueError("too large")
    return data
