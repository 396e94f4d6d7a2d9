"""An action on a resource, as commands and rule tests are given it."""

from __future__ import annotations

from federation.documents.model import (
    ACTION_SETS,
    ACTIONS,
    BROKER_ACTIONS,
    CLUSTER_ACTIONS,
    LIST_NAMESPACES,
)
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


def wider_than_a_request(access: Access) -> str:
    """Return a sentence if one request asks for less than *access*, else an empty text."""
    if access.action in _WITHOUT_A_NAME or access.name != "*":
        return ""
    of_functions = access.action in ACTION_SETS["Function:*"] and access.action != "Function:List"
    if not of_functions and access.namespace != "*":
        return ""
    namespace = "<namespace>" if access.namespace == "*" else access.namespace
    one = (
        f"one function; ask about {namespace}:<function>"
        if of_functions
        else f"one namespace; ask about {namespace}:*"
    )
    return (
        f"{access.resource} is more than one request for {access.action} asks for: it names {one}"
    )


_WITHOUT_A_NAME = CLUSTER_ACTIONS | {LIST_NAMESPACES}
"""The actions of requests that name neither a namespace nor a function."""


def _hint(action: str, resource: str) -> str:
    if action in ACTIONS:
        return "" if action in BROKER_ACTIONS or "*" in resource else resource_hint(resource)
    if action in ACTION_SETS:
        one = min(ACTION_SETS[action], key=lambda each: (each in BROKER_ACTIONS, each))
        return f"ask about one action, such as {one}"
    return action_hint(action)
