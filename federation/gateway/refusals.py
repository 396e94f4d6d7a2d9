"""
The errors of the gateway road, each with the response that the caller gets.

    GatewayError
    ├── RequestRefused            refused before any permission is checked
    │   ├── NotMapped       403   the method and path are not offered here
    │   ├── Ambiguous       403   two programs could read it as two different calls
    │   ├── Malformed       400   not what this call takes
    │   ├── TooLarge        413   more than this call takes
    │   ├── TooSlow         408   the body does not arrive in time
    │   └── NoRoom          503   there is no room for the body
    ├── NotAuthenticated    401   no access token, or an invalid one
    ├── Denied              403   the token does not allow the call
    │   └── PolicyMissing   403   a policy that the token names is not in force
    ├── CallerGone          499   the caller disconnected; it is recorded, not sent
    ├── UpstreamFailed      502   the upstream gave no usable response; 504 if it was too slow
    └── Unavailable         503   the state or the journal cannot be used at the moment

Each has one plain sentence that a person at a command line can act on; faas-cli shows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from federation.errors import HttpError, Reason, Refusal
from federation.policy.permissions import Decision

BEARER = "Bearer"
"""The challenge of a 401 that says nothing more."""
# faas-cli looks for this realm, which a function's watchdog sends. It then exchanges its access
# token for a function token and calls again. On the API that would be in vain.
FUNCTION_CHALLENGE = 'Bearer realm="IAM function invoke"'


class GatewayError(HttpError):
    """An error of the gateway road. The response is one line of plain text."""


class RequestRefused(GatewayError):
    """The request is refused for every caller."""

    status = 403


class NotMapped(RequestRefused):
    """The method and path are not offered here."""


class Ambiguous(RequestRefused):
    """The request can be read in more than one way."""


class Malformed(RequestRefused):
    """A value, a body or its type is not what the call takes."""

    status = 400


class TooLarge(RequestRefused):
    """The request is larger than any honest one."""

    status = 413


class TooSlow(RequestRefused):
    """The body takes longer than that of any honest request."""

    status = 408

    def __init__(self) -> None:
        super().__init__("The body took too long to arrive.")


class NoRoom(RequestRefused):
    """
    There is no room for the body.

    Other bodies took it all and none became free in time. Or the caller is over its own half; then
    it gets this at once.
    """

    status = 503

    def __init__(self) -> None:
        super().__init__("Too many large requests arrive at once. Try again.")
        self.headers = {"Retry-After": "5"}


class NotAuthenticated(GatewayError):
    """There is no access token, or *refusal* says why it is invalid."""

    status = 401

    def __init__(self, refusal: Refusal | None = None, *, challenge: str = BEARER) -> None:
        if refusal is None:
            super().__init__("An access token is needed.")
        else:
            # Only the reason's constant sentence, since everybody can send a token that fails.
            sentence = refusal.reason.sentence.replace("subject token", "access token")
            super().__init__(sentence, evidence=refusal.evidence)
            self.reason = refusal.reason
        self.headers = {"WWW-Authenticate": challenge}


class Denied(GatewayError):
    """The *decision* is no. *why* ends a sentence that begins with action and resource."""

    status = 403

    def __init__(self, decision: Decision, why: str) -> None:
        super().__init__(f"{decision.access.action} on {decision.access.resource} {why}.")
        self.decision = decision


class PolicyMissing(Denied):
    """The token allows nothing, because the policies *missing*, which it names, are not in force."""

    reason = Reason.POLICY_MISSING

    def __init__(self, decision: Decision, missing: Sequence[str]) -> None:
        super().__init__(
            decision,
            f"is not allowed, because policy {missing[0]} of this token is not in force;"
            " a new token has the policies of now",
        )
        self.evidence = {"missing": tuple(missing)}


class CallerGone(GatewayError):
    """The caller closed the connection before its response was complete."""

    status = 499  # nginx's code for this; only the audit event has it

    def __init__(self) -> None:
        super().__init__("The caller left before the answer began.")


class UpstreamFailed(GatewayError):
    """The upstream gave no usable response. *why* is for the operator."""

    status = 502

    def __init__(self, why: str, *, timed_out: bool = False) -> None:
        super().__init__("The gateway behind this broker gave no usable answer.")
        self.why = why
        self.timed_out = timed_out
        if timed_out:
            self.status = 504
            self.public = "The gateway behind this broker did not answer in time."

    def __str__(self) -> str:
        return self.why


class Unavailable(GatewayError):
    """A part of the broker that the request needs cannot be used at the moment."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.public, evidence=refusal.evidence)
        self.reason, self.status, self.headers = refusal.reason, refusal.status, refusal.headers
        self.refusal = refusal

    def __str__(self) -> str:
        return str(self.refusal)


_PLAIN = re.compile(r"[A-Za-z0-9_./-]{1,60}")


def quoted(text: str) -> str:
    """*text* from a request in double quotes, or a placeholder if it has unusual characters."""
    return f'"{text}"' if _PLAIN.fullmatch(text) else "(a name that cannot be shown)"
