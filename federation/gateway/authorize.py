"""
Decides whether a caller may make a call, by its policies or its function token.

It is a pure function from `Caller` and `Call` to a `Permit`. Only a permit lets a call be
forwarded. What is not clearly allowed is denied.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.gateway.refusals import Denied, NotAuthenticated, PolicyMissing
from federation.gateway.routes import Call, HealthCall, Kind
from federation.policy.index import PolicySet
from federation.policy.permissions import Decision, decide
from federation.tokens.verify import Bearer, FunctionBearer


@dataclass(frozen=True, slots=True)
class Anonymous:
    """The caller of a public path. No token was looked at."""


@dataclass(frozen=True, slots=True)
class TokenCaller:
    """The bearer of an access token, with its policies."""

    bearer: Bearer
    policies: PolicySet

    @property
    def expires(self) -> float:
        """When its token expires."""
        return self.bearer.expires


Caller = Anonymous | TokenCaller | FunctionBearer


@dataclass(frozen=True, slots=True)
class Public:
    """The permit for a call that everybody may make."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The permit for a call that *decision* allows."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class GrantedList(Granted):
    """The permit to ask for the namespaces; *caller* gets those that it may see."""

    caller: TokenCaller


Permit = Public | Granted


def authorize(caller: Caller, call: Call | HealthCall) -> Permit:
    """The permit to forward *call* for *caller*. Raises: Denied, NotAuthenticated."""
    if isinstance(call, HealthCall):
        return Public()
    match caller:
        case TokenCaller():
            return _by_policies(caller, call)
        case FunctionBearer():
            return _by_function_token(caller, call)
        case Anonymous() if call.kind.streams:
            return Public()
        case Anonymous():  # callers of the API are never made anonymous; fail closed all the same
            raise NotAuthenticated


def _by_policies(caller: TokenCaller, call: Call) -> Granted:
    policies, claims = caller.policies, caller.bearer.claims
    decision = decide(policies, call.access, claims)
    if decision.allowed:
        lists = call.kind is Kind.NAMESPACES
        return GrantedList(decision, caller) if lists else Granted(decision)
    raise denied(caller, decision)


def denied(caller: TokenCaller, decision: Decision) -> Denied:
    """The error for a *decision* that is no, in words that only the holder of the token reads."""
    if caller.policies.missing:
        return PolicyMissing(decision, caller.policies.missing)
    if decision.policy is not None:
        why = f"is denied by statement {decision.sid} of policy {decision.policy}"
        return Denied(decision, why)
    names = ", ".join(caller.bearer.policies) or "none"
    return Denied(decision, f"is not allowed by this token's policies ({names})")


def _by_function_token(bearer: FunctionBearer, call: Call) -> Granted:
    decision = Decision(call.access, bearer.opens(call.access.namespace, call.access.name))
    if not decision.allowed:
        raise Denied(decision, "is not what this function token is for")
    return Granted(decision)
