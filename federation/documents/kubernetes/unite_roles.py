"""
Rules what becomes of a Role that is an object of a Kubernetes API server.

A Role takes if something may be refused because of it: it limits `tokenExpiry`, or names a Policy
that denies or may deny. To leave it out would allow more, so its last good version stays in force,
or the Role refuses the tokens that it would admit. A shadow Role takes nothing: where its author
made a Role that took into one, what it took ends on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from federation.documents.catalog import role_issuers
from federation.documents.codes import Code
from federation.documents.convert import AnyDocument
from federation.documents.kubernetes.api_objects import ApiObject, Identity, Key, problem_of
from federation.documents.kubernetes.verdicts import Standing, Verdict, errors_of
from federation.documents.model import JwtIssuer, Policy, Role, field_text
from federation.documents.rules.lint import lint_role, refuses_unread_policies
from federation.errors import Problem
from federation.text import quoted

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Others:
    """The documents that Roles are judged by."""

    issuers: Mapping[str, JwtIssuer]
    """Those in force, by `iss`."""
    claimed: Set[str]
    """Each `iss` that an object has or had, in force or not."""
    unread_issuer: bool
    """True if some JwtIssuer is not in force of which not even the `iss` is known."""
    policies: Mapping[str, Policy]
    """Those in force, by name."""
    only_gave: Mapping[str, Policy]
    """The Policies that are left out, and that deny nothing, by name."""
    known_policies: Mapping[str, Policy]
    """
    Those in force and those that are left out.

    The rules read both. A Role that they refuse for what stands in a Policy must not come into
    force because that Policy became bad.
    """
    bad_policies: Set[str]
    """The names of the Policies that are objects and not in force, whether or not they can be read."""
    file_roles: Set[str]
    """The names of Roles in files."""

    def lacks_issuer(self, iss: str) -> bool:
        """Return whether *iss* is that of a JwtIssuer which is not in force, or may be."""
        return iss not in self.issuers and (iss in self.claimed or self.unread_issuer)

    def may_deny(self, name: str) -> bool:
        """Return whether the Policy *name* denies something, or might if it could be read."""
        policy = self.policies.get(name)
        return policy.denies if policy else name not in self.only_gave

    def takes(self, role: Role) -> bool:
        """Return whether something may be refused because of *role*."""
        if role.shadow:
            return False
        return role.token_expiry is not None or any(map(self.may_deny, role.policies))

    def missing(self, role: Role) -> tuple[str, ...]:
        """Return the policies of *role* that are not in force, and of which nobody knows more."""
        return tuple(
            name
            for name in role.policies
            if name not in self.policies and name not in self.only_gave
        )

    def unread(self, role: Role) -> tuple[str, ...]:
        """Return the policies of *role* for which a rule could refuse it if they could be read."""
        unread = [n for n in role.policies if n in self.only_gave and self.only_gave[n].unread]
        return tuple(unread) if unread and refuses_unread_policies(role, self.issuers) else ()

    def without_lost(self, role: Role) -> Role:
        """Return *role* without the policies that are left out."""
        kept = tuple(name for name in role.policies if name not in self.only_gave)
        return role if kept == role.policies else replace(role, policies=kept)

    def named(self, role: Role) -> frozenset[str]:
        """Return the issuers in force whose tokens *role* can admit."""
        return role_issuers(role) & self.issuers.keys()


class Linted(NamedTuple):
    """The problems that the trust rules find in a Role, and all that they looked at."""

    role: Role
    issuers: tuple[JwtIssuer | None, ...]
    """The issuers that it names, in the order of `iss`. None for one that is not in force."""
    configured: frozenset[str]
    """Every issuer in force, if it names one that is not: hints say which may be meant."""
    policies: tuple[Policy, ...]
    """Those that it names and that are in force, if a resource of them names a claim."""
    problems: tuple[Problem, ...]

    @classmethod
    def of(cls, role: Role, others: Others, known: Linted | None) -> Linted:
        """Ask the rules, unless *known* is their answer to the same question."""
        issuers = tuple(others.issuers.get(iss) for iss in sorted(_named_exactly(role)))
        configured = frozenset(others.issuers) if not issuers or None in issuers else frozenset()
        named = (others.known_policies.get(name) for name in role.policies)
        policies = tuple(policy for policy in named if policy is not None and policy.variables)
        if known and known.role is role and known[1:4] == (issuers, configured, policies):
            return known
        problems = lint_role(role, others.issuers, others.known_policies)
        return cls(role, issuers, configured, policies, tuple(problems))


def _named_exactly(role: Role) -> set[str]:
    """Return each issuer that an exact condition of *role* names."""
    return {
        iss
        for condition in role.conditions
        if condition.key == "jwt:iss" and condition.operator.exact
        for iss in condition.values
    }


@dataclass(frozen=True, slots=True)
class Ruled:
    """The outcome for one Role."""

    obj: ApiObject = field(repr=False)
    verdict: Verdict
    in_force: Role | None = None
    """The version that admits tokens, or as a shadow Role would admit them."""
    refusing: tuple[Role, ...] = ()
    """The versions that refuse tokens."""
    good: Role | None = None
    """The Role as its object has it, if that is in force."""
    incomplete: bool = False
    """
    True if some token may lack the Role or one of its policies, here or before a restart.

    All tokens are narrowed then.
    """
    linted: Linted | None = field(default=None, repr=False)
    last: AnyDocument | None = field(default=None, repr=False)
    """The last good version that was known of it before."""


@dataclass(frozen=True, slots=True)
class Rulings:
    """The outcome for each Role, and the other documents that it depends on."""

    others: Others | None = None
    roles: Mapping[Key, Ruled] = field(default_factory=dict)


def rule_all(
    objects: Iterable[ApiObject],
    others: Others,
    last_good: Mapping[Identity, AnyDocument],
    before: Rulings,
) -> Rulings:
    """
    Rule what becomes of each of *objects*. *last_good* are their last good versions.

    What *before* says of an object is taken over where nothing that it depends on has changed: of
    10,000 Roles, few change at a time.
    """
    same = before.others == others
    roles: dict[Key, Ruled] = {}
    for obj in objects:
        known = before.roles.get(obj.key)
        last = last_good.get(obj.identity)
        if same and known and known.obj is obj and (known.good is not None or known.last is last):
            roles[obj.key] = known
        else:
            role = last if isinstance(last, Role) else None
            ruled = _rule(obj, others, role, known.linted if known else None)
            roles[obj.key] = replace(ruled, last=last)
    return Rulings(others, roles)


def _rule(obj: ApiObject, others: Others, last: Role | None, linted: Linted | None) -> Ruled:
    """*linted* is what the trust rules said the last time."""
    problems = obj.parsed.problems
    if obj.name in others.file_roles:
        message = f"the Role {quoted(obj.name)} in a file comes first"
        taken = problem_of(obj, Code.NAME_TAKEN, "metadata.name", message, "rename or delete one")
        told = f"Not in force: {message}."
        return Ruled(obj, Verdict(Standing.CONFLICT, told, (*problems, taken)))
    role = obj.document
    if not isinstance(role, Role):
        return _bad(_Case(obj, None, Standing.INVALID, problems, last), others)
    linted = Linted.of(role, others, linted)
    problems = (*problems, *linted.problems, *_bad_issuers(obj, role, others))
    problems = (*problems, *_unread_policies(obj, role, others))
    standing = _standing(role, errors_of(problems), others)
    missing = tuple(_missing_policies(obj, role, others))
    if missing and standing in {Standing.ACCEPTED, Standing.PENDING}:
        standing = Standing.POLICY_MISSING
    problems = (*problems, *missing)
    if standing is Standing.ACCEPTED:
        return replace(_good(obj, role, problems, others), linted=linted)
    return replace(_bad(_Case(obj, role, standing, problems, last), others), linted=linted)


def _standing(role: Role, errors: tuple[Problem, ...], others: Others) -> Standing:
    """Return how a Role stands that can be read, its policies aside."""
    if role_issuers(role) and not others.named(role):
        return Standing.PENDING  # the rules can say little before its issuer is there
    return Standing.REFUSED if errors else Standing.ACCEPTED


def _bad_issuers(obj: ApiObject, role: Role, others: Others) -> Iterator[Problem]:
    """
    Yield an error for each bad issuer of a Role that also names a good one.

    If the bad issuer were dropped, the other rules would check a Role that its author did not write:
    T005 refuses a Role with issuers of two kinds, and must still do so if one of them becomes bad.
    """
    if not others.named(role):
        return
    place = next(
        place
        for condition, place in zip(role.conditions, role.places, strict=True)
        if condition.key == "jwt:iss" and condition.operator.exact
    )
    for iss in sorted(filter(others.lacks_issuer, role_issuers(role))):
        message = f"the JwtIssuer of {quoted(iss)} is not in force"
        yield problem_of(obj, "T001", field_text(place), message, "mend the JwtIssuer, or drop it")


def _missing_policies(obj: ApiObject, role: Role, others: Others) -> Iterator[Problem]:
    missing = others.missing(role)
    for index, name in enumerate(role.policies):
        if name in missing:
            message = f"there is no Policy {quoted(name)}, or it has errors"
            hint = "apply or mend it, or take it out of this Role"
            place = field_text(("spec", "policy", index))
            yield problem_of(obj, Code.POLICY_MISSING, place, message, hint)


def _unread_policies(obj: ApiObject, role: Role, others: Others) -> Iterator[Problem]:
    unread = others.unread(role)
    for index, name in enumerate(role.policies):
        if name in unread:
            message = (
                f"the Policy {quoted(name)} has a resource that cannot be read, and it may name a"
                " claim that callers choose"
            )
            place = field_text(("spec", "policy", index))
            yield problem_of(
                obj, "T006", place, message, "mend the Policy, or take it out of this Role"
            )


def _lost_policies(obj: ApiObject, role: Role, others: Others) -> Iterator[Problem]:
    for index, name in enumerate(role.policies):
        if name in others.only_gave:
            message = f"the Policy {quoted(name)} has errors and is left out"
            place = field_text(("spec", "policy", index))
            yield problem_of(obj, Code.POLICY_MISSING, place, message, "mend the Policy")


def _good(obj: ApiObject, role: Role, problems: tuple[Problem, ...], others: Others) -> Ruled:
    """Return what becomes of a Role without errors: it may have lost policies that only gave."""
    kept = others.without_lost(role)
    as_what = "In force as a shadow Role, which admits nobody," if role.shadow else "In force"
    if kept is role:
        message = f"{as_what.rstrip(',')}."
        return Ruled(obj, Verdict(Standing.ACCEPTED, message, problems), role, good=role)
    problems = (*problems, *_lost_policies(obj, role, others))
    lost = _some([name for name in role.policies if name in others.only_gave])
    if kept.policies or kept.token_expiry is not None:
        # One without policies still limits how long the tokens live that it takes part in.
        message = f"{as_what} without {lost}, left out for errors."
        in_force = kept
    else:
        message = f"Left out, because it names only {lost}, left out for errors."
        in_force = None
    verdict = Verdict(Standing.POLICY_MISSING, message, problems)
    return Ruled(obj, verdict, in_force, good=role, incomplete=not role.shadow)


def _some(names: Sequence[str]) -> str:
    """The first of *names* as a sentence holds them: a Role can name a thousand."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ("Policy " if len(names) == 1 else "Policies ") + ", ".join(names[:_SHOWN]) + more


class _Case(NamedTuple):
    """A Role that is not in force as it is."""

    obj: ApiObject
    role: Role | None
    """None if it cannot be read."""
    standing: Standing
    problems: tuple[Problem, ...]
    last: Role | None


def _bad(case: _Case, others: Others) -> Ruled:
    """Return what becomes of a Role that is not in force as it is: hold, refuse or leave out."""
    last = case.last
    if last is not None and others.takes(last) and others.named(last):
        if _can_be_held(last, others):
            message = f"{_trouble(case)}, so the last good version stays in force."
            verdict = Verdict(case.standing, message, case.problems, held=True)
            held = others.without_lost(last)
            return Ruled(case.obj, verdict, held, incomplete=held is not last)
        refusing = (last, *_refusing(case, others))
    else:
        refusing = tuple(_refusing(case, others))
    if refusing:
        message = f"{_trouble(case)} and may deny something, so it refuses {_whom(refusing)}."
        verdict = Verdict(case.standing, message, case.problems, refuses=True)
        incomplete = _may_be_left_out(case, others)
        return Ruled(case.obj, verdict, refusing=refusing, incomplete=incomplete)
    if case.standing is Standing.PENDING:
        message = "None of its issuers is in force, so it gives nothing yet."
        verdict = Verdict(case.standing, message, case.problems)
        # A lost Policy narrowed tokens before its issuers became bad, also tokens of others.
        return Ruled(case.obj, verdict, incomplete=_may_be_left_out(case, others))
    message = f"{_trouble(case)} and is left out: it gives nothing."
    verdict = Verdict(case.standing, message, case.problems)
    return Ruled(case.obj, verdict, incomplete=not _never_gave(case))


def _may_be_left_out(case: _Case, others: Others) -> bool:
    """
    Return whether the Role, or a Policy of it, is left out, or may be in a process that knows more.

    There every token is narrowed. A process that refuses instead, since it knows no last good
    version, would otherwise allow more to the tokens that it does not refuse.
    """
    if _never_gave(case):
        return False
    return case.role is None or any(name in others.bad_policies for name in case.role.policies)


def _never_gave(case: _Case) -> bool:
    """Return whether the object is a shadow Role and was none that admits, as far as is known."""
    written = case.role or case.obj.readable
    shadow = isinstance(written, Role) and written.shadow
    return shadow and (case.last is None or case.last.shadow)


def _can_be_held(last: Role, others: Others) -> bool:
    """Return whether the last good version would be good now, apart from issuers that went."""
    if others.missing(last) or others.unread(last):
        return False
    return not errors_of(lint_role(last, others.issuers, others.known_policies))


def _refusing(case: _Case, others: Others) -> Iterator[Role]:
    """Yield the Role whose tokens are refused, if the object may take something away."""
    if case.role is None:
        if case.last is None:
            readable = case.obj.readable
            role = readable if isinstance(readable, Role) else Role(case.obj.name, (), ())
            if not role.shadow:
                yield role
    elif case.standing is not Standing.PENDING and others.takes(case.role):
        yield case.role


def _trouble(case: _Case) -> str:
    match case.standing:
        case Standing.POLICY_MISSING:
            return "It names a Policy that is not in force"
        case Standing.PENDING:
            return "None of its issuers is in force"
        case _:
            return "It has errors"


def _whom(refusing: tuple[Role, ...]) -> str:
    if all(role.conditions for role in refusing):
        return "the tokens that it would admit"
    return "every token"
