"""
The three kinds of document, read field by field.

Each reader returns what could be read, also of a document with problems, so that others which
refer to it are not blamed for them. Only a document without errors goes into a catalog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from federation.documents import shape
from federation.documents.codes import Code
from federation.documents.model import (
    ACTION_SETS,
    Effect,
    JwtIssuer,
    Origin,
    Policy,
    Resource,
    Role,
    Statement,
)
from federation.documents.parse.fields import Field
from federation.documents.parse.jwks import pinned_keys
from federation.documents.parse.nodes import Place, Scalar
from federation.documents.parse.values import (
    certificates_fault,
    duration,
    url_fault,
)
from federation.policy.conditions import ALIASES, KEY_PREFIX, PATTERN_CHARS, Condition, Operator
from federation.providers.table import PROFILES, Provider, known_provider
from federation.text import did_you_mean, quoted

__all__ = ["OPERATORS", "PEM_CHARS", "read_issuer", "read_policy", "read_role"]

OPERATORS: Mapping[str, Operator] = {
    **{operator.value: operator for operator in Operator if operator is not Operator.PRINCIPAL},
    **ALIASES,
}
"""What a condition block may write for an operator."""

_DEFAULT_EXPIRY = timedelta(minutes=15)
_SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(hours=24)
PEM_CHARS = 1024 * 1024

Placed = tuple[Condition, Place]


def read_issuer(name: str, spec: Field, origin: Origin) -> JwtIssuer:
    """The JwtIssuer in *spec*; what is wrong with it is in the report."""
    found = spec.known(shape.ISSUER)
    iss = _url(found.get("iss")) or ""
    provider = _provider(found.get("provider"), iss)
    _contradiction(found)
    use = found["subjectTokenUse"].choice(("once", "many")) if "subjectTokenUse" in found else None
    return JwtIssuer(
        name=name,
        iss=iss,
        audiences=found["aud"].texts() if "aud" in found else (),
        provider=provider,
        token_expiry=_expiry(found.get("tokenExpiry")) or _DEFAULT_EXPIRY,
        single_use=PROFILES[provider].single_use if use is None else use == "once",
        internal_url=_url(found.get("issInternal")),
        jwks_uri=_url(found.get("jwksUri"), query=True),
        jwks=pinned_keys(found["jwks"]) if "jwks" in found else None,
        ca_bundle=_certificates(found.get("caBundle")),
        origin=origin,
    )


def read_role(name: str, spec: Field, origin: Origin) -> Role:
    """The Role in *spec*; what is wrong with it is in the report."""
    found = spec.known(shape.ROLE)
    placed: list[Placed] = []
    if "principal" in found:
        placed += _principal(found["principal"])
    if "condition" in found:
        placed += _block(found["condition"])
    if found and not {"principal", "condition"} & found.keys():
        spec.wrong(
            Code.ROLE_WITHOUT_CONDITIONS,
            "has neither principal nor condition, so nothing says whom it is for",
            "write a condition that names the issuer and the owner",
        )
    return Role(
        name=name,
        policies=found["policy"].texts() if "policy" in found else (),
        conditions=tuple(condition for condition, _ in placed),
        token_expiry=_expiry(found.get("tokenExpiry")),
        places=tuple(place for _, place in placed),
        origin=origin,
    )


def read_policy(name: str, spec: Field, origin: Origin) -> Policy:
    """The Policy in *spec*; what is wrong with it is in the report."""
    found = spec.known(shape.POLICY)
    statements: list[Statement] = []
    sids: dict[str, int] = {}
    for item in found["statement"].items() if "statement" in found else ():
        members = item.known(shape.STATEMENT)
        statements.append(_statement(members))
        if "sid" in members:
            _unique_sid(members["sid"], statements[-1].sid, sids)
    return Policy(name, tuple(statements), origin)


def _statement(members: Mapping[str, Field]) -> Statement:
    effect = members["effect"].choice(Effect) if "effect" in members else None
    return Statement(
        sid=(members["sid"].text() if "sid" in members else None) or "",
        effect=Effect(effect) if effect else Effect.DENY,
        actions=_actions(members["action"]) if "action" in members else frozenset(),
        resources=tuple(_resources(members["resource"])) if "resource" in members else (),
        conditions=tuple(condition for condition, _ in _block(members["condition"]))
        if "condition" in members
        else (),
    )


def _unique_sid(field: Field, sid: str, seen: dict[str, int]) -> None:
    if sid and sid in seen:
        field.wrong(Code.SID_TAKEN, f"{quoted(sid)} is the sid at line {seen[sid]} already")
    seen.setdefault(sid, field.line)


def _actions(field: Field) -> frozenset[str]:
    found: set[str] = set()
    for item in field.items():
        action = item.text()
        if action is None:
            continue
        if action in ACTION_SETS:
            found |= ACTION_SETS[action]
        else:
            item.wrong(
                Code.UNKNOWN_ACTION,
                f"{quoted(action)} is not an action",
                did_you_mean(action, ACTION_SETS),
            )
    return frozenset(found)


def _resources(field: Field) -> Iterator[Resource]:
    for item in field.items():
        text = item.text()
        if text is None or not _short_enough(item, text):
            continue
        try:
            yield Resource(text)
        except ValueError:
            item.wrong(
                Code.BAD_RESOURCE,
                f"{quoted(text)} is not *, <namespace>:* or <namespace>:<function>",
                f"write {quoted(text + ':*')}" if _resource_if(text + ":*") else "",
            )


def _resource_if(text: str) -> bool:
    try:
        Resource(text)
    except ValueError:
        return False
    return True


def _principal(field: Field) -> Iterator[Placed]:
    for key, values in field.entries():
        yield from _condition(Operator.PRINCIPAL, key, values)


def _block(field: Field) -> Iterator[Placed]:
    """The conditions of a block, with the place where each was written."""
    for written, keys in field.entries():
        operator = OPERATORS.get(written)
        if operator is None:
            _unknown_operator(keys, written)
            continue
        for key, values in keys.entries():
            yield from _condition(operator, key, values)


def _condition(operator: Operator, key: str, field: Field) -> Iterator[Placed]:
    values = field.values()
    if operator.pattern:
        values = tuple(value for value in values if _short_enough(field, value))
    try:
        yield Condition(operator, key, values), field.report.one(field.place)
    except ValueError:
        prefixed = KEY_PREFIX + key
        if key.startswith(KEY_PREFIX):
            field.wrong(
                Code.BAD_KEY,
                f"{quoted(key)} names no claim",
                "write jwt:<claim>, or jwt:/a/b where ~ stands as ~0 and / in a name as ~1",
            )
        else:
            message = f"{quoted(key)} has no jwt: before it"
            field.wrong(Code.BAD_KEY, message, f"write {quoted(prefixed)}")


def _short_enough(field: Field, pattern: str) -> bool:
    if len(pattern) <= PATTERN_CHARS:
        return True
    message = f"a pattern of {len(pattern):,} characters; at most {PATTERN_CHARS:,}"
    field.wrong(Code.TOO_LARGE, message)
    return False


def _unknown_operator(field: Field, written: str) -> None:
    if written.startswith("ForAllValues"):
        message = f"{quoted(written)} is not offered: it also holds where the token lacks the claim"
        hint = "write ForAnyValue:StringEqual or ForAnyValue:StringLike"
    else:
        message = f"{quoted(written)} is not an operator"
        hint = did_you_mean(written, OPERATORS)
    field.wrong(Code.UNKNOWN_OPERATOR, message, hint)


def _url(field: Field | None, *, query: bool = False) -> str | None:
    url = field.text() if field else None
    if field is None or url is None:
        return None
    fault = url_fault(url, query=query)
    if fault is None:
        return url
    field.wrong(
        Code.BAD_URL, f"{quoted(url)} {fault}", "write https://<host>, with a path where needed"
    )
    return None


def _provider(field: Field | None, iss: str) -> Provider:
    """The provider as written, or as the issuer's URL tells; the two must not contradict."""
    told = known_provider(iss) if iss else None
    written = field.choice(Provider) if field else None
    if field is None or written is None:
        return told or Provider.GENERIC
    if told is not None and told != written:
        field.wrong(
            Code.PROVIDER_CONTRADICTS,
            f"{written} would switch off the checks for tokens of {quoted(iss)}",
            f"write {told.value}, or leave provider out",
        )
    return Provider(written)


def _contradiction(found: Mapping[str, Field]) -> None:
    """Pinned keys mean that nothing is fetched; an address beside them means the opposite."""
    if "jwks" not in found:
        return
    for name in ("jwksUri", "issInternal"):
        if name in found:
            found[name].wrong(
                Code.KEYS_CONTRADICT,
                f"keys are pinned with jwks, so nothing is ever fetched from {name}",
                f"remove jwks or {name}",
            )


def _expiry(field: Field | None) -> timedelta | None:
    if field is None:
        return None
    written = field.node.text if isinstance(field.node, Scalar) else None
    length = duration(written) if written is not None else None
    if length is None:
        shown = "" if written is None else quoted(written) + " "
        field.wrong(Code.BAD_DURATION, f"{shown}is not a duration", "write 90s, 30m or 1h30m")
        return None
    if not _SHORTEST <= length <= _LONGEST:
        field.wrong(Code.BAD_DURATION, f"{quoted(written or '')} is not between 1m and 24h")
    return length


def _certificates(field: Field | None) -> str | None:
    if field is None:
        return None
    pem = field.node.text if isinstance(field.node, Scalar) else ""
    if len(pem) > PEM_CHARS:
        field.wrong(Code.TOO_LARGE, f"has {len(pem):,} characters; at most {PEM_CHARS:,}")
        return None
    fault = certificates_fault(pem)
    if fault is None:
        return pem
    field.wrong(
        Code.BAD_KEY_MATERIAL, f"caBundle {fault}", "write the CA's certificates in PEM, after |"
    )
    return None
