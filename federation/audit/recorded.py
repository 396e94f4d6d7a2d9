"""
What an event of the trail says about a decision, as values that can be decided again.

An event may come from a file that anybody wrote, so nothing in it is believed for its type: one whose
members contradict each other, or are of other types, is no event. What is not a decision of the
documents is told apart, with a word for why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.audit.bounds import A_TOKEN
from federation.audit.event import Actor
from federation.audit.read import StoredEvent
from federation.documents.model import BROKER_ACTIONS
from federation.errors import Reason
from federation.policy.permissions import Access

EXCHANGE_PATH = "/oauth/token"
FUNCTION = "function"
_ERRORS = 400
_DENIED = 403
_FIELD_CHARS = 1024
_UNKNOWN_REASON = "a reason that this version does not know"

BY_DOCUMENTS = frozenset(
    {
        *(Reason.NO_ROLE_ADMITS, Reason.EVENT_NOT_ALLOWED, Reason.ROLE_NOT_ADMITTED),
        *(Reason.POLICY_MISSING, Reason.MISSING_CLAIM, Reason.NOT_A_CI_TOKEN, Reason.WRONG_PARTY),
        *(Reason.INVALID_TARGET, Reason.INVALID_SCOPE),
    }
)
"""Reasons that follow from a token's claims, what it asked for, and the documents."""
_REASONS = frozenset(Reason)
_OF_FUNCTIONS = frozenset({Reason.INVALID_TARGET, Reason.INVALID_SCOPE})
"""Those that follow from the documents only if a function token was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorded:
    """The fields that both kinds of decisions have."""

    actor: Actor
    roles: tuple[str, ...]
    policies: tuple[str, ...]
    token: str | None
    """The digest of the token that was presented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedExchange(_Recorded):
    """An exchange that was granted, or refused for a reason that follows from the documents."""

    reason: str | None
    """The reason of the refusal, None if it was granted."""
    claims: Mapping[str, object] | None = field(repr=False)
    """The claims that the event keeps of the subject token."""
    claims_cut: tuple[str, ...]
    asked: tuple[str, ...]
    """The Roles that the job asked for."""
    for_functions: bool
    audience: tuple[str, ...]
    issued: str | None
    """The digest of the token that was granted."""
    shadow_roles: tuple[str, ...]

    @property
    def granted(self) -> bool:
        """True if it got a token."""
        return self.reason is None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest(_Recorded):
    """A request to the gateway or the API that was allowed or denied by the token's policies."""

    access: tuple[Access, ...]
    allowed: bool


@dataclass(frozen=True, slots=True)
class NotDecided:
    """An event of which the documents decided nothing."""

    why: str
    """A reason slug, or a few words."""


Recorded = RecordedExchange | RecordedRequest | NotDecided


def recorded(event: StoredEvent) -> Recorded:
    """Return what *event* says. Raises: ValueError if it is not an event of the trail."""
    for member in ("event_id", "time"):
        _text(event, member)  # every event has them, and nothing here reads them
    path = _text(event, "path")
    code, reason, actor = (event.get(member) for member in ("response_code", "reason", "actor"))
    if not isinstance(code, int) or not isinstance(reason, str | None):
        raise ValueError("its response code or its reason is none")  # noqa: TRY004  as all others
    if actor is None:
        return NotDecided("of nobody who was identified")
    if not isinstance(actor, dict):
        raise ValueError("its actor is none")  # noqa: TRY004  one kind of error for bad input
    if reason is not None and reason not in _REASONS:
        return NotDecided(_UNKNOWN_REASON)
    known = _Recorded(
        actor=Actor(*(_text(actor, member) for member in Actor._fields)),
        roles=_names(event, "roles"),
        policies=_names(event, "policies"),
        token=_digest(event, "token_sha256"),
    )
    exchange = path == EXCHANGE_PATH and "resource" not in event
    return (_exchange if exchange else _request)(event, code, reason, known)


def _exchange(event: StoredEvent, code: int, reason: str | None, known: _Recorded) -> Recorded:
    if (reason is None) != (code < _ERRORS):
        raise ValueError("its reason and its response code contradict each other")
    for_functions = event.get("scope") == FUNCTION
    if reason is not None and (
        reason not in BY_DOCUMENTS or (reason in _OF_FUNCTIONS and not for_functions)
    ):
        return NotDecided(reason)
    claims = event.get("claims")
    if not isinstance(claims, dict | None):
        raise ValueError("its claims are none")  # noqa: TRY004  one kind of error for bad input
    if reason is None and claims is not None and not known.roles:
        raise ValueError("it was granted by no Role")
    return RecordedExchange(
        actor=known.actor,
        roles=known.roles,
        policies=known.policies,
        token=known.token,
        reason=reason,
        claims=claims,
        claims_cut=_names(event, "claims_cut"),
        asked=_names(event, "roles_asked"),
        for_functions=for_functions,
        audience=_names(event, "audience"),
        issued=_digest(event, "issued_token_sha256"),
        shadow_roles=_names(event, "shadow_roles"),
    )


def _request(event: StoredEvent, code: int, reason: str | None, known: _Recorded) -> Recorded:
    actions = _names(event, "actions")
    if not actions:
        return NotDecided(reason or "asked for no permission")
    if reason not in {None, Reason.POLICY_MISSING}:
        return NotDecided(reason)  # such as a token that ended while the body arrived
    whole = BROKER_ACTIONS.issuperset(actions)
    resource = "*" if whole else _text(event, "resource")
    access = tuple(Access.parse(action, resource) for action in actions)
    # An upstream may answer 403 too. Only the broker's own begins so. What follows may be cut, and
    # a name that looks like a token is replaced.
    own = f"{access[-1].action} on "
    denied = code == _DENIED and str(event.get("custom_message")).startswith(own)
    if reason == Reason.POLICY_MISSING and not denied:
        raise ValueError("its reason and its response code contradict each other")
    if denied and not known.roles:
        return NotDecided("not what its function token is for")
    return RecordedRequest(
        actor=known.actor,
        roles=known.roles,
        policies=known.policies,
        token=known.token,
        access=access,
        allowed=not denied,
    )


def _text(members: Mapping[str, object], member: str) -> str:
    text = members.get(member)
    if not isinstance(text, str) or len(text) > _FIELD_CHARS:
        raise ValueError(f"its {member} is none")
    return text


def _names(event: StoredEvent, member: str) -> tuple[str, ...]:
    match event.get(member, []):
        case [*listed] if all(isinstance(name, str) for name in listed):
            names = tuple(map(str, listed))
        case _:
            raise ValueError(f"its {member} is not a list of names")
    if sum(map(len, names)) + len(names) > _FIELD_CHARS:
        raise ValueError(f"its {member} is longer than events have")
    return names


def _digest(event: StoredEvent, member: str) -> str | None:
    return None if event.get(member) is None else _text(event, member)


def may_name_shadow_role(event: StoredEvent, role: str) -> bool:
    """
    Return whether the shadow Role named *role* may have admitted the token of *event*.

    That is so if the event names it, or names so many that it did not have room for all.
    """
    match event.get("shadow_roles"):
        case [*listed]:
            names = tuple(map(str, listed))
            return role in names or was_cut(names)
    return False


def was_cut(names: tuple[str, ...]) -> bool:
    """Return whether *names* did not fit into their event, or one of them looked like a token."""
    did_not_fit = bool(names) and names[-1].startswith("(and ") and names[-1].endswith(" more)")
    return did_not_fit or any(A_TOKEN in name for name in names)
