"""
The list of namespaces, cut down to what the caller may know of.

A namespace is shown where the caller's policies allow anything at all in it. It is hidden
where they deny `Namespace:List` on it, and an answer that is not a plain list of names is
shown to nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from federation.claims import Claims
from federation.documents.model import Effect, Policy, Statement
from federation.errors import FederationError
from federation.gateway import values
from federation.jose.strict_json import loads
from federation.policy.permissions import Access, Decision, decide

__all__ = ["ANSWER_BYTES", "UnreadableAnswer", "may_list", "narrow", "visible"]

ANSWER_BYTES = 1024 * 1024
"""The largest answer that is read."""

LIST = "Namespace:List"


class UnreadableAnswer(FederationError):
    """The upstream's answer is not a list of namespaces."""


def may_list(policies: Sequence[Policy], claims: Claims) -> Decision:
    """
    Whether the list may be asked for at all: with `Namespace:List` on any namespace.

    The upstream's own policies grant it on a single one, and the answer is narrowed.
    """
    whole = decide(policies, Access(LIST, "*", "*"), claims)
    asked = (
        decide(policies, Access(LIST, *resource.halves), claims)
        for statement in _allowing(policies)
        if LIST in statement.actions
        for resource in statement.resources
    )
    granted = next((decision for decision in asked if decision.allowed), whole)
    return Decision(whole.access, granted.allowed, granted.policy, granted.sid, granted.effect)


def visible(policies: Sequence[Policy], claims: Claims, namespace: str) -> bool:
    """Whether anything at all is allowed in *namespace*."""
    if decide(policies, Access(LIST, namespace, "*"), claims).effect is Effect.DENY:
        return False
    # A grant's own pattern is the widest thing that it grants: if a Deny covers even that, a
    # matching pattern read as a name, nothing of the grant is left.
    asks = {
        (action, resource.halves[1])
        for statement in _allowing(policies)
        for resource in statement.resources
        for action in statement.actions
        if not action.startswith("System:")  # of the cluster, and done in no namespace
    }
    return any(
        decide(policies, Access(action, namespace, name), claims).allowed for action, name in asks
    )


def narrow(answer: bytes, policies: Sequence[Policy], claims: Claims) -> bytes:
    """
    The upstream's *answer* with the visible namespaces alone, in its order.

    Raises: UnreadableAnswer.
    """
    shown = [name for name in _namespaces(answer) if visible(policies, claims, name)]
    return json.dumps(shown, separators=(",", ":")).encode("ascii")


def _namespaces(answer: bytes) -> list[str]:
    if len(answer) > ANSWER_BYTES:
        raise UnreadableAnswer(f"more than {ANSWER_BYTES} bytes")
    try:
        listed = loads(answer)
        # Go writes a list that was never made as null.
        return [values.label(name) for name in values.texts([] if listed is None else listed)]
    except ValueError as error:
        raise UnreadableAnswer("not a list of namespaces") from error


def _allowing(policies: Iterable[Policy]) -> Iterator[Statement]:
    for policy in policies:
        for statement in policy.statements:
            if statement.effect is Effect.ALLOW:
                yield statement
