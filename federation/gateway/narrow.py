"""
Removes from the upstream's list of namespaces those that the caller may not see.

A namespace is visible if the caller's policies allow anything at all in it and do not deny
`Namespace:List` on it. A response that is not a plain list of names is not passed on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from federation.claims import Claims
from federation.documents.model import CLUSTER_ACTIONS, LIST_NAMESPACES, Effect, Policy, Statement
from federation.gateway import values
from federation.gateway.refusals import UpstreamFailed
from federation.jose.strict_json import loads
from federation.policy.permissions import Access, decide

LIST_BYTES = 1024 * 1024
"""The largest list that is read."""


class UnreadableList(UpstreamFailed):
    """The upstream's response is not a list of namespaces."""


def visible(policies: Sequence[Policy], claims: Claims, namespace: str) -> bool:
    """True if anything at all is allowed in *namespace*, and listing it is not denied."""
    if decide(policies, Access(LIST_NAMESPACES, namespace, "*"), claims).effect is Effect.DENY:
        return False
    # Ask for each grant's own pattern as if it were a name, since that is the widest thing that
    # it grants. If a Deny covers even that, nothing of the grant is left. Grants on other namespaces
    # are passed over: to ask for all of them in each namespace takes seconds.
    asks = {
        (action, resource.halves[1])
        for statement in _allowing(policies)
        for written in statement.resources
        if written.may_reach_into(namespace)
        and (resource := written.filled(claims, taking=False)) is not None
        and resource.may_reach_into(namespace)
        for action in statement.actions
        if action not in CLUSTER_ACTIONS  # these are about no namespace
    }
    return any(
        decide(policies, Access(action, namespace, name), claims).allowed for action, name in asks
    )


def narrow(response: bytes, policies: Sequence[Policy], claims: Claims) -> bytes:
    """The visible namespaces of the upstream's *response*, in its order."""
    shown = [name for name in _namespaces(response) if visible(policies, claims, name)]
    return json.dumps(shown, separators=(",", ":")).encode("ascii")


def _namespaces(response: bytes) -> list[str]:
    if len(response) > LIST_BYTES:
        raise UnreadableList(f"more than {LIST_BYTES} bytes")
    try:
        listed = loads(response)
        # Go writes a nil slice as null.
        return [values.label(name) for name in values.texts([] if listed is None else listed)]
    except ValueError as error:
        raise UnreadableList("not a list of namespaces") from error


def _allowing(policies: Iterable[Policy]) -> Iterator[Statement]:
    for policy in policies:
        for statement in policy.statements:
            if statement.effect is Effect.ALLOW:
                yield statement
