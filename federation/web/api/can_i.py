"""
`POST /federation/v1/can-i`: what the caller's token would be allowed.

It needs no permission: the holder of a token can find out by trying. The answer is made by the
function that decides at the gateway, so it cannot differ from what happens there.
"""

from __future__ import annotations

from collections.abc import Sequence

from federation.jose.strict_json import dumps
from federation.policy.permissions import Access, decide
from federation.web.api.endpoint import Asked
from federation.web.api.parameters import accesses_in, check_members
from federation.web.api.turns import Turns


async def can_i(turns: Turns, asked: Asked) -> bytes:
    """A decision for each access in the body, in the same order, as JSON."""
    check_members(asked.body, ("access",), "The body")
    accesses = accesses_in(asked.body)
    return await turns.run(asked.person, _decided, asked, accesses)


def _decided(asked: Asked, accesses: Sequence[Access]) -> bytes:
    policies, claims = asked.caller.policies, asked.claims
    decisions = (decide(policies, access, claims) for access in accesses)
    return dumps({"access": [decision.as_json() for decision in decisions]})
