"""
Decides recorded events by one set of documents, with the functions that decide requests.

Nothing is guessed. An event need not keep all claims of its token, so each condition that reads one
that was not kept is taken both as holding and as not holding. If that makes a difference, the event
is `Undecided`. Tokens of one kind are decided once: a decision depends only on those claims that the
documents read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from federation.audit.kept_claims import MAY_BE_LEFT_OUT
from federation.audit.recorded import RecordedExchange, RecordedRequest, was_cut
from federation.claims import Claims, UnverifiedClaims
from federation.documents.catalog import Catalog
from federation.documents.model import INVOKE, Effect, JwtIssuer
from federation.errors import Reason, Refusal
from federation.issuers.verify import check_claims, check_times, trusted_issuer
from federation.jose.strict_json import dumps_ascii
from federation.policy.index import PolicyNames, PolicySet, PolicySets
from federation.policy.permissions import Access, Decision, decide, granted_resources
from federation.policy.replay import Given, Outcome
from federation.policy.roles import Admission, admit, shadow_admission
from federation.replayed.unknown import (
    assuming,
    facts,
    gives_by,
    not_decided,
    read_by_policies,
    readers,
)
from federation.tokens.mint import access_claims

_KINDS = 10_000
_CLAIMS_BYTES = 16 * 1024
"""The claims of an event take half of that."""

_CHECKED = frozenset({"iss", "sub", "aud", "azp", "typ", "events", "iat", "exp", "nbf"})
"""The claims that are checked before any Role is evaluated."""
_TIMES = frozenset({"iat", "exp", "nbf"})
_NEW_IN_EACH_TOKEN = frozenset({"iat", "nbf", "exp", "jti", "fed:jti"})
"""Claims of an access token that its event does not tell."""

NO_CLAIMS = "The event keeps no claims of the token (setting audit-claims)."
CLAIMS_CUT = "Claims that decide were too large for the event, or held a token."
NAMES_CUT = (
    "The list of Roles or functions that the job asked for was too long for the event, or held what"
    " looks like a token."
)
NOT_ASKED = "An older event does not say which Roles the job asked for."
NOT_KEPT = "A Role or statement that may decide reads a claim that the event does not keep: {}."
SHADOW_NOT_KEPT = "A shadow Role may decide by a claim that the event does not keep: {}."


@dataclass(frozen=True, slots=True)
class Token:
    """The result of an exchange by one set of documents."""

    outcome: Outcome
    held: PolicyNames
    claims: Claims
    """The claims of its access token that policies read."""
    unknown: frozenset[str]
    """The names of those that the event does not tell."""
    shadows_read: frozenset[str] = frozenset()
    """The claims of the subject token for lack of which some shadow Role is not decided."""

    @classmethod
    def refused(cls, reason: Reason, shadows: _Shadows) -> Token:
        """No token, because of *reason*."""
        outcome = Outcome(reason=reason, shadow_roles=shadows.admitting)
        return cls(outcome, PolicyNames(()), Claims({}), frozenset(), shadows.read)


class _Shadows(NamedTuple):
    """The shadow Roles that would admit a token."""

    admitting: tuple[str, ...] = ()
    read: frozenset[str] = frozenset()
    """The claims for lack of which some of them are not decided."""


class Undecided(Exception):
    """The event does not tell enough to decide it again."""


class Decider:
    """Decides events by *catalog*, and remembers the kinds of tokens that it has decided."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        roles = catalog.roles
        self._policies = PolicySets()
        self._read_by_policies = read_by_policies(catalog.policies.values())
        self._reads = (
            _CHECKED
            | self._read_by_policies
            | {c.path[0] for role in catalog.all_roles for c in role.conditions}
            | frozenset().union(*(facts(issuer) for issuer in catalog.issuers.values()))
        )
        self._readers = readers(roles)
        self._shadow_readers = readers(catalog.shadow_roles)
        self._tokens: dict[bytes, Token | Undecided] = {}
        self._bounds: dict[tuple[PolicyNames, frozenset[str]], tuple[PolicySet, PolicySet]] = {}
        self.given = Given(
            {role.name: frozenset(role.policies) for role in catalog.all_roles},
            self._only_denies,
        )

    def _only_denies(self, name: str) -> bool:
        policy = self.catalog.policies.get(name)
        return policy is not None and all(s.effect is Effect.DENY for s in policy.statements)

    # Exchanges

    def exchange(self, event: RecordedExchange) -> Token:
        """Return what the exchange would get. Raises: Undecided."""
        key = self._key(event)
        known = self._tokens.get(key)
        if known is None:
            try:
                known = self._decided(event)
            except Undecided as undecided:
                known = undecided
            if len(self._tokens) >= _KINDS:
                self._tokens.clear()
            self._tokens[key] = known
        if isinstance(known, Undecided):
            raise known.with_traceback(None)
        return known

    def _key(self, event: RecordedExchange) -> bytes:
        """Return a digest of all that the decision depends on."""
        claims = event.claims or {}
        read = {name: claims[name] for name in sorted(self._reads & claims.keys())}
        for name in _TIMES - self._readers.keys():  # no condition reads them: their form counts
            read.pop(name, None)
        older = event.roles if event.granted and event.issued is None else ()
        said = [
            *(
                event.claims is None,
                read,
                _times_fault(claims),
                event.actor.issuer,
                event.claims_cut,
            ),
            *(event.asked, event.for_functions, event.audience, older),
        ]
        written = dumps_ascii(said)
        if len(written) > _CLAIMS_BYTES:
            raise ValueError("its claims are larger than events have")
        return blake2b(written, digest_size=16).digest()

    def _decided(self, event: RecordedExchange) -> Token:
        if event.claims is None:
            raise Undecided(NO_CLAIMS)
        if was_cut(event.asked) or was_cut(event.audience):
            raise Undecided(NAMES_CUT)
        if event.reason == Reason.ROLE_NOT_ADMITTED and not event.asked:
            raise Undecided(NOT_ASKED)
        claims = Claims(event.claims)
        unverified = UnverifiedClaims(event.claims)
        cut = frozenset(event.claims_cut)
        shadows = _Shadows()
        try:
            if "iss" in cut:
                raise Undecided(CLAIMS_CUT)
            issuer = trusted_issuer(unverified, self.catalog.issuers)
            if was_cut(event.claims_cut) or cut & (_CHECKED | facts(issuer)):
                raise Undecided(CLAIMS_CUT)
            check_claims(issuer, unverified, now=None)
            unknown = MAY_BE_LEFT_OUT.difference(claims) | cut
            self._check_known(claims, unknown)
            shadows = self._shadows(issuer, claims, unknown)
            admission = self._admission(event, issuer, claims)
        except Refusal as refusal:
            return Token.refused(refusal.reason, shadows)
        token = self._token(event, admission, claims, unknown, shadows)
        if event.for_functions and (reason := self._no_function_token(token, event.audience)):
            return Token.refused(reason, shadows)
        return token

    def _check_known(self, claims: Claims, unknown: frozenset[str]) -> None:
        """Make sure that no Role depends on the claims named in *unknown*. Raises: Undecided."""
        for name, _ in not_decided(self._readers, claims, unknown):
            raise Undecided(NOT_KEPT.format(name))

    def _shadows(self, issuer: JwtIssuer, claims: Claims, unknown: frozenset[str]) -> _Shadows:
        """Return the shadow Roles that would admit *claims*. Undecided ones do not count."""
        found = list(not_decided(self._shadow_readers, claims, unknown))
        unsure = {role for _, role in found}
        names = shadow_admission(self.catalog, issuer, claims).roles
        admitting = tuple(name for name in names if name not in unsure)
        return _Shadows(admitting, frozenset(claim for claim, _ in found))

    def _admission(self, event: RecordedExchange, issuer: JwtIssuer, claims: Claims) -> Admission:
        admission = admit(self.catalog, issuer, claims, only=event.asked)
        if event.granted and event.issued is None:
            # An older event lacks `roles_asked`. The job may have asked for these Roles alone.
            given = set(event.roles).intersection(role.name for role in admission.roles)
            return admission.narrowed_to(given, self.catalog) if given else admission
        return admission

    def _token(
        self,
        event: RecordedExchange,
        admission: Admission,
        claims: Claims,
        unknown: frozenset[str],
        shadows: _Shadows,
    ) -> Token:
        minted = access_claims(
            claims, admission, issuer_url=event.actor.issuer, now=0, jti="replayed"
        )
        return Token(
            Outcome(
                tuple(r.name for r in admission.roles), admission.policies, "", shadows.admitting
            ),
            admission.held,
            Claims({n: value for n, value in minted.items() if n in self._read_by_policies}),
            (unknown | _NEW_IN_EACH_TOKEN) & self._read_by_policies,
            shadows.read,
        )

    def _no_function_token(self, token: Token, audience: Iterable[str]) -> Reason | None:
        """Return why the exchange gets no function token, None if it gets one. Raises: Undecided."""
        held = self._policies.of(self.catalog, token.held)
        if held.missing:
            return Reason.POLICY_MISSING
        for function in audience:
            try:
                asked = Access.parse(INVOKE, function)
            except ValueError:
                return Reason.INVALID_TARGET
            if "*" in function or not self.request(token, asked).allowed:
                return Reason.INVALID_TARGET
        if audience:
            return None
        found = {
            bool(granted_resources(policies, INVOKE, token.claims))
            for policies in self._within(token)
        }
        # A resource that is widened as far as possible may overlap a Deny, and is then left out.
        if len(found) > 1 or (found == {False} and gives_by(held, INVOKE, token.unknown)):
            raise Undecided(NOT_KEPT.format(", ".join(sorted(token.unknown))))
        return None if found.pop() else Reason.INVALID_SCOPE

    # Requests

    def request(self, token: Token, access: Access) -> Decision:
        """Decide *access* for a request with *token*. Raises: Undecided."""
        decisions = [decide(each, access, token.claims) for each in self._within(token)]
        if len({decision.allowed for decision in decisions}) > 1:
            raise Undecided(NOT_KEPT.format(", ".join(sorted(token.unknown))))
        return decisions[0]

    def held_by_roles(self, event: RecordedRequest) -> Token | None:
        """
        Return the token of a request whose exchange was not read, from the Roles in its event.

        These Roles are assumed to admit it still. None if the event does not name them.
        """
        if not event.roles or was_cut(event.roles) or was_cut(event.policies):
            return None
        by_name = self.given.policies_of
        giving = dict.fromkeys(
            policy
            for role in self.catalog.roles
            if role.name in event.roles
            for policy in role.policies
        )
        # The job may have asked for some of its Roles only. Denies of the others stay in the token.
        given_then = frozenset().union(*(by_name.get(role, frozenset()) for role in event.roles))
        denying = tuple(
            name for name in event.policies if name not in given_then and self._denies(name)
        )
        there = tuple(r.name for r in self.catalog.roles if r.name in event.roles)
        held = PolicyNames((*giving, *denying), denying, narrowed=bool(denying))
        known = {"sub": event.actor.sub, "iss": event.actor.issuer, "aud": event.actor.issuer}
        known["fed:iss"] = event.actor.fed_issuer
        outcome = Outcome(there, held.names, "" if there else Reason.NO_ROLE_ADMITS)
        unknown = self._read_by_policies.difference(known)
        return Token(outcome, held, Claims(known), unknown)

    def _denies(self, name: str) -> bool:
        policy = self.catalog.policies.get(name)
        return policy is not None and policy.denies

    def _within(self, token: Token) -> tuple[PolicySet, ...]:
        """The policies of *token*; with unknown claims, the least and the most they may give."""
        policies = self._policies.of(self.catalog, token.held)
        if not token.unknown:
            return (policies,)
        key = token.held, token.unknown
        if key not in self._bounds:
            if len(self._bounds) >= _KINDS:
                self._bounds.clear()
            self._bounds[key] = (
                assuming(policies, token.unknown, Effect.DENY),
                assuming(policies, token.unknown, Effect.ALLOW),
            )
        return self._bounds[key]


def _times_fault(claims: Mapping[str, object]) -> str:
    """Return the reason why the times of *claims* are malformed; empty if they are not."""
    try:
        check_times(UnverifiedClaims(claims), now=None)
    except Refusal as refusal:
        return refusal.reason
    return ""
