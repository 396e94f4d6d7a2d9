"""
W101 to W105, W107, W112, W113: Roles that load, and let in more, or less, than they seem to.

Each rule looks for one known mistake and names the safer condition. `docs/lint.md` tells the
story behind each.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from federation.documents.rules.owners import literal_prefix, only_wildcards
from federation.documents.rules.role_facts import Reading, Written, keys, yaml
from federation.documents.rules.trust import reaches_the_owner
from federation.errors import Problem
from federation.providers.table import Provider
from federation.text import quoted

__all__ = [
    "environment_without_ref",
    "events_named_in_vain",
    "inner_wildcards",
    "names_without_ids",
    "one_form_of_sub",
    "open_endings",
    "short_refs",
    "unrestricted_refs",
]


class _Family(NamedTuple):
    """Claims that hold names, and the ids that would outlive them."""

    names: frozenset[str]
    ids: frozenset[str]
    advice: str
    sub_name: re.Pattern[str] | None = None
    sub_id: re.Pattern[str] | None = None

    @property
    def keys(self) -> frozenset[str]:
        """Where the names can stand."""
        return self.names | _SUB if self.sub_name else self.names


_GITHUB_CODE = _Family(
    keys("repository", "repository_owner"),
    keys("repository_id", "repository_owner_id"),
    f"add {yaml('StringEqual', repository_owner_id='<id>')}; "
    "`gh api repos/OWNER/NAME --jq .owner.id` prints it",
    sub_name=re.compile(r"(?:^|:)(?:repo|repository):[^:@]*(?::|$)|(?:^|:)repository_owner:"),
    sub_id=re.compile(
        r"(?:^|:)(?:repo:[^/:@*?]+@[0-9]+/|(?:repository_owner_id|repository_id):[0-9]+(?::|$))"
    ),
)
_GITLAB_CODE = _Family(
    keys("project_path", "namespace_path"),
    keys("project_id", "namespace_id"),
    f"add {yaml('StringEqual', project_id='<id>')}; the project's page shows it, and so does "
    "`glab api projects/GROUP%2FNAME`",
    sub_name=re.compile(r"(?:^|:)(?:project_path|namespace_path):"),
    sub_id=re.compile(r"(?:^|:)(?:project_id|namespace_id):[0-9]+(?::|$)"),
)


_SUB = keys("sub")


def _person(name: str, *ids: str) -> _Family:
    return _Family(keys(name), keys(*ids), f"add {yaml('StringEqual', **{ids[0]: '<id>'})}")


_FAMILIES: Mapping[Provider, tuple[_Family, ...]] = MappingProxyType(
    {
        Provider.GITHUB: (
            _GITHUB_CODE,
            _person("actor", "actor_id"),
            _person("enterprise", "enterprise_id"),
        ),
        Provider.GITLAB: (
            _GITLAB_CODE,
            _person("user_login", "user_id"),
            _person("job_project_path", "job_project_id", "job_namespace_id"),
        ),
        Provider.GENERIC: (),
    }
)


def names_without_ids(reading: Reading) -> Iterator[Problem]:
    """W101: a name admits whoever holds it, and names change hands; no id is pinned beside it."""
    for provider in sorted(reading.providers):
        for family in _FAMILIES[provider]:
            if reading.narrowed.isdisjoint(family.keys):
                continue
            named = next((w for w in reading.conditions if _is_name(family, w)), None)
            if named and not _id_pinned(family, reading):
                yield reading.problem(
                    "W101",
                    named.place,
                    f"{quoted(named.values[0])} is a name: whoever takes it over after a rename or "
                    "a deletion is admitted",
                    family.advice,
                )


def _is_name(family: _Family, written: Written) -> bool:
    if not written.narrows:
        return False
    if written.condition.key == "jwt:sub" and family.sub_name:
        return any(map(family.sub_name.search, written.values))
    return written.condition.key in family.names


def _id_pinned(family: _Family, reading: Reading) -> bool:
    if family.sub_id and reading.subjects(family.sub_id):
        return True
    return any(
        not written.condition.operator.pattern
        or all(literal_prefix(value) == value for value in written.values)
        for written in reading.on(family.ids)
    )


_REF_KEYS = keys("ref", "ref_path", "ref_protected")
_REF_IN_SUB = re.compile(r":(?:ref|ref_path|ref_protected):[^*?]")
_TYPE_IN_SUB = re.compile(r":ref_type:[^*?]")
_ENVIRONMENT_IN_SUB = re.compile(r":environment:[^*?]")
_REF_IN_WORKFLOW = re.compile(r"@[^*?]")
_ASK_FOR_REF: Mapping[Provider, str] = MappingProxyType(
    {
        Provider.GITHUB: f"add {yaml('StringEqual', ref='refs/heads/main')}",
        Provider.GITLAB: (
            f"add {yaml('StringEqual', ref_path='refs/heads/main', ref_protected='true')}"
        ),
    }
)


def unrestricted_refs(reading: Reading) -> Iterator[Problem]:
    """W102: any branch, tag or pull request of the repository will do."""
    if not reading.of_ci:
        return
    shared = [
        (written, number)
        for written in reading.on(_SUB)
        for number, value in enumerate(written.values)
        if value.endswith(":pull_request")
    ]
    for written, number in shared:
        yield reading.problem(
            "W102",
            written.place,
            f"every author of a pull request in the repository has the subject "
            f"{quoted(written.values[number])}, whatever the branch",
            "let no Role that deploys admit it; for previews, give a Role of its own few rights",
            value=number,
        )
    if shared or _restricts_ref(reading) or _restricts_environment(reading):
        return
    yield reading.problem(
        "W102",
        reading.block,
        "no restriction on ref or environment: whoever may push any branch may use this Role",
        _ask_for_ref(reading),
    )


def environment_without_ref(reading: Reading) -> Iterator[Problem]:
    """W103: an environment that has no protection rules can be named from any branch."""
    if not reading.of_ci or not _restricts_environment(reading):
        return
    if _restricts_ref(reading) or "jwt:ref_type" in reading.narrowed:
        return
    if reading.subjects(_TYPE_IN_SUB):
        return
    naming = next(reading.on({"jwt:environment"}), None) or next(reading.on(_SUB))
    yield reading.problem(
        "W103",
        naming.place,
        "an environment without protection rules can be named by a job on any branch",
        _ask_for_ref(reading),
    )


def _restricts_ref(reading: Reading) -> bool:
    return (
        not _REF_KEYS.isdisjoint(reading.narrowed)
        or reading.subjects(_REF_IN_SUB)
        or any(
            all(map(_REF_IN_WORKFLOW.search, written.values))
            for written in reading.on({"jwt:workflow_ref"})
        )
    )


def _restricts_environment(reading: Reading) -> bool:
    return "jwt:environment" in reading.narrowed or reading.subjects(_ENVIRONMENT_IN_SUB)


def _ask_for_ref(reading: Reading) -> str:
    asked = [_ASK_FOR_REF[p] for p in sorted(reading.providers) if p in _ASK_FOR_REF]
    return asked[0]


_SEPARATORS = frozenset(string.punctuation) - {"*", "?"}


def open_endings(reading: Reading) -> Iterator[Problem]:
    """W104: a trailing wildcard that follows no separator also takes longer names in."""
    for written, number, value in _patterns(reading):
        literal = value.rstrip("*?")
        if not value.endswith("*") or not literal or literal[-1] in _SEPARATORS:
            continue
        yield reading.problem(
            "W104",
            written.place,
            f"{quoted(value)} also matches {quoted(literal + '-evil')}",
            f"write {quoted(literal + '/*')}, or each value under StringEqual",
            value=number,
        )


_COMPOSED = keys("sub", "ref", "ref_path", "workflow_ref", "job_workflow_ref", "ci_config_ref_uri")
_STAR_INSIDE = re.compile(r"\*[*?]*[^*?]")


def inner_wildcards(reading: Reading) -> Iterator[Problem]:
    """W112: a `*` before more text runs over separators, into parts that a caller may choose."""
    if not reading.of_ci:
        return
    for written, number, value in _patterns(reading):
        if written.condition.key not in _COMPOSED or not _STAR_INSIDE.search(value):
            continue
        yield reading.problem(
            "W112",
            written.place,
            f"in {quoted(value)} the * also runs over / : and @: "
            f"{_RUN_OVER[written.condition.key](value)}",
            _instead_of_star(written.condition.key),
            value=number,
        )


def _any_name(value: str) -> str:
    return f"a name that ends in {quoted(value.rpartition('*')[2])} is enough"


def _branch_at(value: str) -> str:
    return f"so does a branch called {quoted('x' + value.rpartition('*')[2])}"


_RUN_OVER: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "jwt:sub": _any_name,
        "jwt:ref": _any_name,
        "jwt:ref_path": _any_name,
        "jwt:workflow_ref": _branch_at,
        "jwt:job_workflow_ref": _branch_at,
        "jwt:ci_config_ref_uri": _branch_at,
    }
)


def _instead_of_star(key: str) -> str:
    if key == "jwt:sub":
        return "put the repository and the ref or environment into conditions of their own"
    if key in {"jwt:ref", "jwt:ref_path"}:
        return "write the whole ref, or let the pattern begin with refs/heads/ or refs/tags/"
    return "write the file and the ref out, or put the ref into a condition of its own"


def _patterns(reading: Reading) -> Iterator[tuple[Written, int, str]]:
    """The values of positive patterns that say something and that T003 lets pass."""
    for written in reading.patterns:
        condition = written.condition
        for number, value in enumerate(condition.values):
            if not only_wildcards(condition, value) and not reaches_the_owner(
                reading, condition, value
            ):
                yield written, number, value


_DEMANDED: Mapping[str, str] = MappingProxyType(
    {
        "jwt:event_name": "every event, those that outsiders cause included",
        "jwt:pipeline_source": "every pipeline, those of merge requests included",
        "jwt:job_project_id": "pipelines of every fork",
        "jwt:job_project_path": "pipelines of every fork",
    }
)
"""What must be named before a token from a doubtful situation is admitted, and why."""


def events_named_in_vain(reading: Reading) -> Iterator[Problem]:
    """W113: a claim that keeps outsiders out is named, with any value."""
    if not reading.of_ci:
        return
    for written in reading.patterns:
        key = written.condition.key
        if key not in _DEMANDED or key in reading.narrowed:
            continue
        number = next(n for n, v in enumerate(written.values) if not v.strip("*?"))
        yield reading.problem(
            "W113",
            written.place,
            f"{quoted(written.values[number])} names {key} and admits {_DEMANDED[key]}",
            "list the values that are meant under StringEqual, or drop the condition",
            value=number,
        )


def short_refs(reading: Reading) -> Iterator[Problem]:
    """W105: GitLab's `ref` is short: a branch and a tag of one name look alike."""
    if Provider.GITLAB not in reading.providers or reading.subjects(_TYPE_IN_SUB):
        return
    if not keys("ref_type", "ref_path").isdisjoint(reading.narrowed):
        return
    for written in reading.on({"jwt:ref"}):
        yield reading.problem(
            "W105",
            written.place,
            f"on GitLab a tag called {quoted(written.values[0])} has the same ref as the branch",
            f"add {yaml('StringEqual', ref_type='branch')}, or compare ref_path instead",
        )


_IDS_IN_SUB = re.compile(r"repo:[^:]*@")


def one_form_of_sub(reading: Reading) -> Iterator[Problem]:
    """W107: GitHub's `sub` has two forms, and a rename flips a repository from one to the other."""
    if not any(
        issuer.provider is Provider.GITHUB and not issuer.iss.endswith("/_services/token")
        for issuer in reading.issuers
    ):
        return
    for written in reading.on(_SUB):
        with_ids = {
            bool(_IDS_IN_SUB.match(value)) for value in written.values if value.startswith("repo:")
        }
        if len(with_ids) != 1:
            continue
        other = "repo:OWNER/NAME:…" if with_ids == {True} else "repo:OWNER@ID/NAME@ID:…"
        yield reading.problem(
            "W107",
            written.place,
            f"GitHub writes this subject in two forms, and this one does not match {other}",
            f"compare {yaml('StringEqual', repository_id='<id>', ref='refs/heads/main')} "
            "instead, or list both forms",
        )
