"""An action on a resource, as commands and rule tests are given it."""

from __future__ import annotations

from federation.documents.model import ACTION_SETS, ACTIONS, BROKER_ACTIONS
from federation.documents.suggest import action_hint, resource_hint
from federation.policy.permissions import Access


def asked_access(action: str, resource: str) -> Access:
    """
    Return the access of two words. The hints are those that documents get, and never give more.

    Raises: ValueError, with a sentence that says what to write.
    """
    try:
        return Access.parse(action, resource)
    except ValueError as error:
        hint = _hint(action, resource)
        raise ValueError(f"{error}; {hint}" if hint else str(error)) from error


def access_in(text: str) -> Access:
    """Return the access of `ACTION=RESOURCE`. Raises: ValueError, as `asked_access` does."""
    action, equals, resource = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not ACTION=RESOURCE, such as Function:Create=dev:figlet")
    return asked_access(action, resource)


def _hint(action: str, resource: str) -> str:
    if action in ACTIONS:
        return "" if action in BROKER_ACTIONS or "*" in resource else resource_hint(resource)
    if action in ACTION_SETS:
        one = min(ACTION_SETS[action], key=lambda each: (each in BROKER_ACTIONS, each))
        return f"ask about one action, such as {one}"
    return action_hint(action)
