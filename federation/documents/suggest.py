"""
Hints for an action that does not exist, and for a resource that cannot be read.

A hint is often copied without a second look, so it must never give more than was meant: a word
for deploying is never taken for Delete, however alike the two look, nor one for deployments or
components for Documents, which shows all rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from federation.documents.model import ACTION_SETS, BROKER_ACTIONS
from federation.documents.platforms import unrendered
from federation.policy.conditions import KEY_PREFIX
from federation.text import nearest, quoted

_GROUPS = tuple(dict.fromkeys(a.partition(":")[0] for a in ACTION_SETS if ":" in a))
_MEANT: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(
        ("deploy", "apply", "write", "put", "push", "publish", "set", "install", "upsert"),
        ("Create", "Update"),
    ),
    **dict.fromkeys(("add", "new", "make"), ("Create",)),
    **dict.fromkeys(("change", "edit", "modify", "patch"), ("Update",)),
    **dict.fromkeys(("describe", "view", "show", "inspect"), ("List", "Get")),
    **dict.fromkeys(("call", "run", "exec", "execute"), ("Invoke",)),
    **dict.fromkeys(("remove", "destroy"), ("Delete",)),
}
"""Common names of actions, in lower case, and the action that each means here."""
_OF_THE_BROKER = frozenset(action.partition(":")[0] for action in BROKER_ACTIONS)
_TAKES = frozenset({"Delete", "Admin", "*"})
_SURELY = 0.9
_CLAIM = re.compile(r"[a-z][a-z0-9_]*")
"""A name that claims have, and placeholders rarely."""


def action_hint(action: str) -> str:
    """Return what to write instead of *action*, which is not one."""
    before, colon, verb = action.rpartition(":")
    group = nearest(before if colon else "Function", _GROUPS)
    if group in _OF_THE_BROKER and not nearest(before, [group], cutoff=_SURELY):
        group = nearest(before, [each for each in _GROUPS if each not in _OF_THE_BROKER])
    if group is None:
        return f"write one of {', '.join(_GROUPS)} before the colon, for example Function:List"
    verbs = [name.partition(":")[2] for name in ACTION_SETS if name.startswith(f"{group}:")]
    if meant := [f"{group}:{each}" for each in _MEANT.get(verb.lower(), ()) if each in verbs]:
        return f"write {' and '.join(meant)}"
    near = nearest(verb, verbs)
    if near and (near not in _TAKES or nearest(verb, [near], cutoff=_SURELY)):
        return f"did you mean {group}:{near}?"
    return f"known here: {', '.join(f'{group}:{each}' for each in verbs)}"


def variable_hint(resource: str) -> str:
    """Return what to write where *resource* was to hold a claim or is a template; else empty."""
    filled = unrendered(resource)
    if "${" not in resource:
        return f"it {filled[0]}; {filled[1]}" if filled else ""
    inner, closed, _ = resource.partition("${")[2].partition("}")
    if not closed:
        return "a variable is written ${jwt:<claim>}; close it with }"
    name = inner.removeprefix(KEY_PREFIX)
    if inner == name and filled and not _CLAIM.fullmatch(inner):
        return f"it {filled[0]}; {filled[1]}; a claim of the token is written ${{jwt:<claim>}}"
    if inner == name and _CLAIM.fullmatch(inner):
        return f"for a claim of the token write {quoted(f'${{jwt:{inner}}}')}"
    return (
        "write ${jwt:<claim>}, or ${jwt:/a/b} where ~ stands as ~0 and / in a name as ~1, and one :"
        " between namespace and function"
    )


def resource_hint(resource: str) -> str:
    """Return what to write instead of *resource*, which lacks its namespace; empty if unknown."""
    # A name alone is more often meant as a function, and taking it for a namespace grants more.
    if not re.fullmatch(r"[-a-zA-Z0-9_.*]+", resource):
        return ""
    function, example = f"<namespace>:{resource}", f"openfaas-fn:{resource}"
    return (
        f"for a function write {quoted(function)}, for example {quoted(example)};"
        f" only for a whole namespace {quoted(f'{resource}:*')}"
    )
