"""
Unites the documents of files with objects of a Kubernetes API server, one object at a time.

Files are adopted as a whole or not at all. Objects are judged one by one, since each has its own
author: a bad object does not stop the others. What only gives is left out, and what takes stays in
force, so a bad object never allows more than was allowed before. What can be read of a bad object is
believed; what cannot be read may have taken anything away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from federation.documents.catalog import Catalog
from federation.documents.codes import Code
from federation.documents.convert import AnyDocument
from federation.documents.kubernetes.api_objects import (
    ApiObject,
    Identity,
    Key,
    problem_of,
    read_object,
)
from federation.documents.kubernetes.unite_roles import Others, Ruled, Rulings, rule_all
from federation.documents.kubernetes.verdicts import Standing, Verdict, errors_of
from federation.documents.model import JwtIssuer, Policy, Role
from federation.documents.pauses import Pause, go_on, paced
from federation.documents.rules.lint import lint_issuer, lint_policies
from federation.errors import Problem
from federation.text import quoted

__all__ = [
    "ApiObject",
    "Identity",
    "Key",
    "Rulings",
    "Standing",
    "United",
    "Verdict",
    "read_object",
    "unite",
]

Judge = Callable[[JwtIssuer], Iterable[Problem]]


@dataclass(frozen=True, slots=True)
class United:
    """The result of uniting files and objects."""

    catalog: Catalog
    verdicts: Mapping[Key, Verdict] = field(default_factory=dict)
    last_good: Mapping[Identity, AnyDocument] = field(default_factory=dict)
    """
    The last version of each object that was in force, also of those that are left out now.

    An object that was deleted and made anew has none: deleting it took away what it gave.
    """
    rulings: Rulings = field(default=Rulings(), repr=False)
    """The outcome for each Role, so that the next time few of them are looked at."""


def unite(
    files: Catalog,
    objects: Iterable[ApiObject],
    before: United = United(Catalog()),  # noqa: B008  it is immutable
    *,
    judge_issuer: Judge = lambda _issuer: (),
    pause: Pause = go_on,
) -> United:
    """
    Unite *files* with *objects*.

    *before* is the result of the last time; the default is a cold start. *judge_issuer* returns
    errors of an issuer that only this broker's settings show. *pause* is called before each Role.
    """
    listed = sorted(objects, key=lambda obj: obj.key)
    issuers = _Issuers.of(files, _of_kind("JwtIssuer", listed), before)
    issuers.judge(judge_issuer)
    policies = _Policies.of(files, _of_kind("Policy", listed), before)
    others = _others(files, issuers, policies)
    roles = paced(_of_kind("Role", listed), pause)
    rulings = rule_all(roles, others, before.last_good, before.rulings)
    ruled = rulings.roles.values()
    verdicts: dict[Key, Verdict] = {obj.key: _UNKNOWN for obj in listed}
    verdicts |= issuers.verdicts | policies.verdicts
    verdicts |= {each.obj.key: each.verdict for each in ruled}
    digest = _digest(files, listed, verdicts)
    catalog = _catalog(files, others, ruled, digest, before.catalog, pause=pause)
    good: dict[Identity, AnyDocument] = {**issuers.good, **policies.good}
    good |= {each.obj.identity: each.good for each in ruled if each.good is not None}
    identities = {obj.identity for obj in listed}
    kept = {made: version for made, version in before.last_good.items() if made in identities}
    named = (*files.all_roles, *_roles_that_name_policies(ruled))
    return United(catalog, _warned(verdicts, named, catalog.policies), kept | good, rulings)


_UNKNOWN = Verdict(Standing.INVALID, "It is no JwtIssuer, Policy or Role, and is left out.")


def _of_kind(kind: str, objects: Iterable[ApiObject]) -> list[ApiObject]:
    return [obj for obj in objects if obj.kind == kind]


def _others(files: Catalog, issuers: _Issuers, policies: _Policies) -> Others:
    return Others(
        issuers.in_force,
        issuers.claimed.keys(),
        bool(issuers.unread),
        policies.in_force,
        policies.only_gave,
        {**policies.in_force, **policies.only_gave},
        frozenset(name for _, name in policies.verdicts) - policies.in_force.keys(),
        frozenset(role.name for role in files.all_roles),
    )


def _catalog(
    files: Catalog,
    others: Others,
    roles: Collection[Ruled],
    digest: str,
    before: Catalog,
    *,
    pause: Pause,
) -> Catalog:
    in_force = tuple(ruled.in_force for ruled in roles if ruled.in_force is not None)
    return Catalog(
        issuers=others.issuers,
        roles=(*files.roles, *(role for role in in_force if not role.shadow)),
        shadow_roles=(*files.shadow_roles, *(role for role in in_force if role.shadow)),
        policies=others.policies,
        warnings=files.warnings,
        digest=digest,
        refusing=tuple(role for ruled in roles for role in ruled.refusing),
        incomplete=any(ruled.incomplete for ruled in roles),
        awaited=files.awaited,
        before=before,
        pause=pause,
    )


def _digest(files: Catalog, listed: Sequence[ApiObject], verdicts: Mapping[Key, Verdict]) -> str:
    """The digest of files and objects. What is held is not the same in every process."""
    digest = hashlib.sha256(files.digest.encode())
    for obj in listed:
        verdict = verdicts[obj.key]
        told = (obj.kind, obj.name, obj.uid, str(obj.generation), verdict.standing)
        digest.update("\0".join((*told, str(verdict.held), "")).encode())
    return digest.hexdigest()


def _roles_that_name_policies(ruled: Iterable[Ruled]) -> Iterator[Role]:
    """Yield the Roles that can be read, in force or not, and those that are held."""
    for each in ruled:
        if each.linted is not None:
            yield each.linted.role
        if each.verdict.held and each.in_force is not None:
            yield each.in_force


def _warned(
    verdicts: Mapping[Key, Verdict], roles: Sequence[Role], policies: Mapping[str, Policy]
) -> Mapping[Key, Verdict]:
    """Return *verdicts* with the warnings that only all documents together show."""
    warned = dict(verdicts)
    # A Role that cannot be read may name any Policy.
    unread = any(k == "Role" and v.standing is Standing.INVALID for (k, _), v in verdicts.items())
    for problem in lint_policies(roles, policies):
        key = (problem.kind, problem.name)
        verdict = warned.get(key)
        # A Policy of a file may have the name of an object, which is in conflict then.
        if verdict is None or verdict.standing is not Standing.ACCEPTED:
            continue
        if not (unread and problem.code == "W109"):
            warned[key] = replace(verdict, problems=(*verdict.problems, problem))
    return warned


@dataclass(slots=True)
class _Issuers:
    """The JwtIssuers, by the `iss` that each claims."""

    in_force: dict[str, JwtIssuer]
    objects: Sequence[ApiObject]
    last_good: Mapping[Identity, AnyDocument]
    names: frozenset[str]
    """The names of JwtIssuers in files."""
    good: dict[Identity, JwtIssuer] = field(default_factory=dict)
    """Those of objects that are in force."""
    verdicts: dict[Key, Verdict] = field(default_factory=dict)
    claimed: dict[str, str] = field(default_factory=dict)
    """For each `iss` the name of the oldest object that claims it, also if it is bad."""
    unread: str = ""
    """The name of the oldest bad object of which not even the `iss` is known."""

    @classmethod
    def of(cls, files: Catalog, objects: Sequence[ApiObject], before: United) -> _Issuers:
        """Begin with the issuers of *files*."""
        names = frozenset(issuer.name for issuer in files.issuers.values())
        oldest_first = sorted(objects, key=lambda obj: obj.age)
        return cls(dict(files.issuers), oldest_first, before.last_good, names)

    def judge(self, judge_issuer: Judge) -> None:
        """Judge each object, the oldest first."""
        for obj in self.objects:
            problems = obj.parsed.problems
            issuer = obj.document
            if isinstance(issuer, JwtIssuer):
                problems = (*problems, *judge_issuer(issuer), *lint_issuer(issuer))
            self.verdicts[obj.key] = self._verdict(obj, problems)
            self._claim(obj, issuer, bad=bool(errors_of(problems)))

    def _verdict(self, obj: ApiObject, problems: tuple[Problem, ...]) -> Verdict:
        issuer = obj.document
        if not isinstance(issuer, JwtIssuer) or errors_of(problems):
            message = "It has errors and is not in force: tokens of this issuer are refused."
            standing = Standing.REFUSED if isinstance(issuer, JwtIssuer) else Standing.INVALID
            return Verdict(standing, message, problems)
        if taken := self._taken(obj, issuer):
            message = f"Not in force: {taken.message}."
            return Verdict(Standing.CONFLICT, message, (*problems, taken))
        self.in_force[issuer.iss] = issuer
        self.good[obj.identity] = issuer
        return Verdict(Standing.ACCEPTED, "In force.", problems)

    def _taken(self, obj: ApiObject, issuer: JwtIssuer) -> Problem | None:
        """Return why the object may not have its name or its `iss`."""
        if obj.name in self.names:
            return _name_taken(obj)
        if issuer.iss in self.claimed:
            by = f"the older JwtIssuer {self.claimed[issuer.iss]} has this iss"
        elif issuer.iss in self.in_force:
            by = "a JwtIssuer in a file has this iss"
        elif self.unread:
            by = f"the older JwtIssuer {self.unread} may have this iss, and cannot be read"
        else:
            return None
        hint = "keep one JwtIssuer, with the audiences of both"
        return problem_of(obj, Code.ISS_TAKEN, "iss", by, hint)

    def _claim(self, obj: ApiObject, issuer: AnyDocument | None, *, bad: bool) -> None:
        """Note the `iss` of an object. A bad one keeps that of its last good version too."""
        versions = [issuer or obj.readable]
        if bad:
            versions.append(self.last_good.get(obj.identity))
        claimed = [v.iss for v in versions if isinstance(v, JwtIssuer) and v.iss]
        for iss in claimed:
            self.claimed.setdefault(iss, obj.name)
        if not claimed:
            # A younger issuer must not come into force because this one cannot be read.
            self.unread = self.unread or obj.name


def _name_taken(obj: ApiObject) -> Problem:
    message = f"the {obj.kind} {quoted(obj.name)} in a file comes first"
    return problem_of(obj, Code.NAME_TAKEN, "metadata.name", message, "rename or delete one")


@dataclass(slots=True)
class _Policies:
    """The Policies by name."""

    in_force: dict[str, Policy]
    only_gave: dict[str, Policy] = field(default_factory=dict)
    """The Policies that are left out, and that deny nothing: as they were good, or can be read."""
    good: dict[Identity, Policy] = field(default_factory=dict)
    """Those of objects that are in force as they are."""
    verdicts: dict[Key, Verdict] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Catalog, objects: Sequence[ApiObject], before: United) -> _Policies:
        """Those of *files* and *objects*."""
        made = cls(dict(files.policies))
        for obj in objects:
            made.verdicts[obj.key] = made._verdict(obj, files, before.last_good.get(obj.identity))
        return made

    def _verdict(self, obj: ApiObject, files: Catalog, last: AnyDocument | None) -> Verdict:
        problems = obj.parsed.problems
        if obj.name in files.policies:
            taken = _name_taken(obj)
            return Verdict(Standing.CONFLICT, f"Not in force: {taken.message}.", (*problems, taken))
        if isinstance(obj.document, Policy):
            self.in_force[obj.name] = obj.document
            self.good[obj.identity] = obj.document
            return Verdict(Standing.ACCEPTED, "In force.", problems)
        return self._bad(obj, last)

    def _bad(self, obj: ApiObject, last: AnyDocument | None) -> Verdict:
        problems = obj.parsed.problems
        known = last or obj.readable
        if isinstance(known, Policy) and not known.denies:
            self.only_gave[obj.name] = known
            message = "It has errors and is left out: Roles that name it give their other policies."
            return Verdict(Standing.INVALID, message, problems)
        if isinstance(last, Policy):
            self.in_force[obj.name] = last
            message = "It has errors, and the last good version stays in force."
            return Verdict(Standing.INVALID, message, problems, held=True)
        message = "It has errors and may deny something: Roles that name it refuse their tokens."
        return Verdict(Standing.INVALID, message, problems)
