"""
Compares what the documents make of a token with what a rule test expects, and says why they differ.

The outcome is that of the functions that decide exchanges and requests; this module only compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from federation.claims import Claims, at, shown
from federation.documents.asked import wider_than_a_request
from federation.documents.catalog import Catalog
from federation.documents.model import Effect, Policy, Role, Statement
from federation.documents.rule_tests import Expected, RuleTest, at_fault
from federation.errors import Problem, Reason, Refusal
from federation.policy.conditions import Condition
from federation.policy.explain import Filled
from federation.policy.index import PolicySet
from federation.policy.permissions import Access, Decision, about, decide
from federation.policy.roles import Admission, ShadowAdmission, evaluate
from federation.providers.table import GENERIC
from federation.text import nearest, printable, quoted

NOTHING = "none"
BY_ROLES = frozenset({Reason.NO_ROLE_ADMITS, Reason.EVENT_NOT_ALLOWED})
"""The reasons of a token that passed its own checks, and that no Role admits."""
_VALUES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for a token: a refusal, or an admission with its accesses."""

    claims: Claims = field(repr=False)
    """Those of the subject token."""
    refusal: Refusal | None
    admission: Admission | None = None
    granted: PolicySet = field(default_factory=PolicySet, repr=False)
    """The policies of the access token."""
    minted: Claims = field(default_factory=lambda: Claims({}), repr=False)
    """The claims of the access token."""
    shadow: ShadowAdmission = field(default_factory=ShadowAdmission)
    """The shadow Roles that would have admitted the token."""

    @property
    def shadow_roles(self) -> frozenset[str]:
        """The names of the shadow Roles that would have admitted the token."""
        return frozenset(self.shadow.roles)

    @property
    def roles(self) -> frozenset[str]:
        """The names of the Roles that admit the token."""
        return frozenset(role.name for role in self.admission.roles) if self.admission else _NONE

    @property
    def policies(self) -> frozenset[str]:
        """The names of the policies that the access token has."""
        return frozenset(self.admission.policies) if self.admission else _NONE

    def decide(self, access: Access) -> Decision:
        """Return whether the access token may do *access*. Without one, nothing is allowed."""
        return decide(self.granted, access, self.minted)

    def about(self, access: Access) -> Iterable[tuple[Policy, Statement]]:
        """Return the statements about *access*, whatever their conditions."""
        return about(self.granted, access, self.minted)

    @property
    def summary(self) -> str:
        """The outcome in a few words."""
        if self.refusal is None:
            return f"admitted by {_listed(self.roles)}"
        return f"refused with {self.refusal.reason}"


_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for a difference: a condition that decided, with what it compared."""

    sentence: str
    expected: str = ""
    got: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a test expects and that did not come."""

    field: str
    """The field of `expect`."""
    expected: str
    got: str
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one test."""

    test: RuleTest
    outcome: Outcome
    decisions: tuple[Decision, ...]
    """Those of the accesses that the test names."""
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """True if everything came as the test expects it."""
        return not self.differences

    @property
    def note(self) -> str:
        """A note on a test that passed and says less than it seems to, else empty."""
        expected, refusal = self.test.expected, self.outcome.refusal
        if not self.passed or expected.refusal is not None:
            return ""
        if refusal is None:
            return next(filter(None, map(_denied_in_part, self.decisions)), "")
        if (expected.roles, expected.policies) == (None, None):
            so = "no policy denied anything"
        elif refusal.reason not in BY_ROLES:
            so = "no Role was asked"
        else:
            return ""
        return (
            f"the token is {self.outcome.summary}, so {so};"
            f" expect refusal: {refusal.reason} too, or mend the claims"
        )


def _denied_in_part(decision: Decision) -> str:
    """Return why a no to an access says little, empty if it says that every request is refused."""
    if decision.allowed or decision.effect is Effect.DENY:  # a Deny took all of the access
        return ""
    wider = wider_than_a_request(decision.access)
    asked = f"{decision.access.action}={decision.access.resource}"
    return wider and f"denied {asked} passes though less may be allowed: {wider}"


def judge(test: RuleTest, outcome: Outcome, catalog: Catalog) -> Result:
    """Compare *outcome*, which *catalog* gives for the claims of *test*, with what it expects."""
    expected = test.expected
    decisions = tuple(outcome.decide(each) for each in (*expected.allowed, *expected.denied))
    differences = (
        *_of_refusal(expected, outcome),
        *_of_roles(expected, outcome, catalog),
        *_of_shadow_roles(expected, outcome, catalog),
        *_of_policies(expected, outcome),
        *_of_accesses(expected, outcome, decisions),
    )
    return Result(test, outcome, decisions, differences)


class Names:
    """The names that tests may expect, of all documents."""

    def __init__(self, catalog: Catalog) -> None:
        self._roles = frozenset(role.name for role in catalog.roles)
        self._shadow_roles = frozenset(role.name for role in catalog.shadow_roles)
        self._policies = frozenset(catalog.policies)

    def problems(self, test: RuleTest) -> Iterator[Problem]:
        """Yield a problem for each Role and Policy that *test* expects and that does not exist."""
        expected, roles, shadow = test.expected, self._roles, self._shadow_roles
        for place, kind, names, known, elsewhere, home in (
            ("roles", "Role", expected.roles, roles, shadow, "shadowRoles"),
            ("shadowRoles", "shadow Role", expected.shadow_roles, shadow, roles, "roles"),
            ("policies", "Policy", expected.policies, self._policies, _NONE, ""),
        ):
            for name in sorted((names or _NONE) - known):
                near = nearest(name, sorted(known))
                hint = f"did you mean {near}?" if near else ""
                if name in elsewhere:
                    hint = f"it belongs under spec.expect.{home}"
                message = f"no {kind} is called {quoted(name)}"
                yield at_fault(test, ("spec", "expect", place), message, hint)


def _of_refusal(expected: Expected, outcome: Outcome) -> Iterator[Difference]:
    refusal = outcome.refusal
    if expected.refusal and expected.refusal != (refusal and refusal.reason):
        causes = (*_why_refused(refusal), *_why_admitted(outcome, outcome.roles))
        yield Difference("refusal", expected.refusal, outcome.summary, causes)


def _of_roles(expected: Expected, outcome: Outcome, catalog: Catalog) -> Iterator[Difference]:
    wanted, came = expected.roles, outcome.roles
    if wanted is not None and wanted != came:
        causes = (
            *_why_not(catalog, outcome, wanted - came),
            *_why_admitted(outcome, came - wanted),
        )
        yield Difference("roles", _listed(wanted), _or_refused(came, outcome), causes)


def _of_shadow_roles(
    expected: Expected, outcome: Outcome, catalog: Catalog
) -> Iterator[Difference]:
    wanted, came = expected.shadow_roles, outcome.shadow_roles
    if wanted is not None and wanted != came:
        causes = tuple(_why_not(catalog, outcome, wanted - came))
        yield Difference("shadowRoles", _listed(wanted), _listed(came), causes)


def _of_policies(expected: Expected, outcome: Outcome) -> Iterator[Difference]:
    wanted, came = expected.policies, outcome.policies
    if wanted is not None and wanted != came:
        causes = tuple(_who_gives(outcome, came - wanted))
        if not expected.roles:  # else the difference of the Roles says why
            causes = (*causes, *_why_refused(outcome.refusal))
        yield Difference("policies", _listed(wanted), _or_refused(came, outcome), causes)


def _or_refused(names: frozenset[str], outcome: Outcome) -> str:
    return _listed(names) if outcome.refusal is None else f"{NOTHING}: {outcome.summary}"


def _of_accesses(
    expected: Expected, outcome: Outcome, decisions: Sequence[Decision]
) -> Iterator[Difference]:
    allowed = len(expected.allowed)
    for index, decision in enumerate(decisions):
        if decision.allowed == (index < allowed):
            continue
        access = f"{decision.access.action}={decision.access.resource}"
        wanted, came = ("allowed", "denied") if index < allowed else ("denied", "allowed")
        nothing = not decision.allowed and decision.effect is None
        causes = tuple(_why_nothing(outcome, decision)) if nothing else ()
        if not (expected.roles or expected.policies):
            causes = (*causes, *_why_refused(outcome.refusal))
        yield Difference(f"{wanted} {access}", wanted, f"{came}: {_by(outcome, decision)}", causes)


def _by(outcome: Outcome, decision: Decision) -> str:
    if outcome.refusal is not None:
        return f"the token is {outcome.summary}"
    if decision.effect is not None:
        return f"{decision.effect} {decision.policy}/{decision.sid}"
    if outcome.granted.missing:
        return f"the Policy {_listed(outcome.granted.missing)} is not in force"
    return f"no statement of {_listed(outcome.policies)} matches"


def _why_nothing(outcome: Outcome, decision: Decision) -> Iterator[Cause]:
    """Yield the conditions, and the variables in resources, that kept an Allow from matching."""
    access, claims = decision.access, outcome.minted
    if wider := wider_than_a_request(access):
        yield Cause(wider)
    reaching = list(outcome.about(access))
    for policy, statement in about(outcome.granted, access):
        if statement.effect is not Effect.ALLOW:
            continue
        subject = f"Allow {policy.name}/{statement.sid}"
        for condition in failing(statement, claims):
            yield _compared(subject, condition, claims)
        for resource in statement.resources if (policy, statement) not in reaching else ():
            if resource.variables:
                filled = Filled.of(policy, statement, resource, claims)
                told = ", ".join(f"{name} is {value}" for name, value in filled.claims.items())
                became = filled.became or "nothing"
                yield Cause(f"{subject}: {resource.text} became {became}, since {told}")


def failing(statement: Statement, claims: Claims) -> list[Condition]:
    """Return the conditions that keep *statement* from taking part for these *claims*."""
    test: Callable[[Condition], bool] = (
        (lambda condition: condition.refuted(claims))
        if statement.effect is Effect.DENY
        else (lambda condition: not condition.satisfied(claims))
    )
    return [condition for condition in statement.conditions if test(condition)]


def _why_refused(refusal: Refusal | None) -> Iterator[Cause]:
    """Yield why the token was refused, as the operator may know it."""
    if refusal is None:
        return
    evidence = refusal.evidence
    if "expected" in evidence:
        accepted = evidence["expected"]
        values = accepted if isinstance(accepted, list | tuple) else [accepted]
        got = evidence.get("got", evidence.get("azp"))
        yield Cause(refusal.reason.sentence, _values(map(str, values)), shown(got))
    elif "iss" in evidence:
        yield Cause(refusal.reason.sentence, "the iss of a JwtIssuer", shown(evidence["iss"]))
    elif "claim" in evidence:
        yield Cause(refusal.reason.sentence, f"the claim {evidence['claim']}", shown(None))
    else:
        yield Cause(printable(refusal.public))


def _why_not(catalog: Catalog, outcome: Outcome, names: frozenset[str]) -> Iterator[Cause]:
    """Yield what keeps each Role of *names* from admitting the token."""
    if names and outcome.refusal and outcome.refusal.reason not in BY_ROLES:
        yield from _why_refused(outcome.refusal)
        return
    issuer = catalog.issuers.get(str(outcome.claims.get("iss")))
    roles = [role for role in catalog.all_roles if role.name in names] if names else []
    for evaluation in evaluate(roles, issuer.provider if issuer else GENERIC, outcome.claims):
        subject = f"Role {evaluation.role.name}"
        for finding in evaluation.failed:
            yield _compared(subject, finding.condition, evaluation.claims)
        for demand in evaluation.unmet:
            keys = " or ".join(sorted(demand.keys))
            got = " | ".join(shown(at(outcome.claims, claim)) for claim in demand.claims)
            yield Cause(f"{subject}: {demand.sentence}", f"a condition on {keys}", got)


def _compared(subject: str, condition: Condition, claims: Claims) -> Cause:
    sentence = f"{subject}: {condition.operator} {printable(condition.key)}"
    return Cause(sentence, _values(condition.values), shown(condition.claim(claims)))


def _values(values: Iterable[str]) -> str:
    given = [shown(value) for value in values]
    more = [f"{len(given) - _VALUES_SHOWN} more"] if len(given) > _VALUES_SHOWN else []
    return " | ".join([*given[:_VALUES_SHOWN], *more])


def _why_admitted(outcome: Outcome, names: frozenset[str]) -> Iterator[Cause]:
    for role in _admitting(outcome):
        if role.name in names:
            keys = ", ".join(printable(condition.key) for condition in role.conditions)
            yield Cause(f"Role {role.name} admits: every condition holds ({keys})")
            for condition in role.conditions:
                if not condition.operator.exact:  # one with a wildcard holds more than it may seem
                    yield _compared(f"Role {role.name}", condition, outcome.claims)


def _who_gives(outcome: Outcome, names: frozenset[str]) -> Iterator[Cause]:
    for role in _admitting(outcome):
        if given := names.intersection(role.policies):
            yield Cause(f"Role {role.name} gives {_listed(given)}")


def _admitting(outcome: Outcome) -> Sequence[Role]:
    return outcome.admission.roles if outcome.admission else ()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or NOTHING
