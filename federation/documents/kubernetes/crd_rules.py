"""
Rules in CEL for the CustomResourceDefinitions: what a single object shows to be wrong.

Each rule's message begins with our code. A rule is at most as strict as the broker, which checks
everything again. Where a rule says it better than a pattern, the field has no pattern: an API
server reads rules only once patterns and types fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from federation.documents import schema
from federation.documents.codes import Code
from federation.documents.model import BROKER_ACTIONS
from federation.jose.jwk import PRIVATE_MEMBERS
from federation.policy.conditions import KEY_PREFIX
from federation.providers.table import GENERIC, PROFILES

Schema = dict[str, Any]
RULES = "x-kubernetes-validations"


def rule(code: Code, expression: str, message: str) -> Schema:
    """Return a rule that refuses an object with *code* unless *expression* holds."""
    return {"rule": expression, "message": f"{code.value}: {message}"}


_DURATION = r"^(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$"


def duration_field(field: Schema) -> Schema:
    """Return *field* as one that holds a duration between a minute and a day."""
    # Fractions of a microsecond are dropped when the broker reads a duration.
    between = (
        "duration(self) >= duration('1m') && duration(self) < duration('24h') + duration('1us')"
    )
    message = "not a duration between 1m and 24h; write 90s, 30m or 1h30m"
    bare = {key: value for key, value in field.items() if key != "pattern"}
    return bare | {
        RULES: [
            rule(Code.BAD_DURATION, f"self.matches(r'{_DURATION}') && {between}", message),
        ]
    }


_LOOPBACK = (
    r"(?i)^http://(localhost|127(\.[0-9]{1,3}){3}|\[[0:]*:0*1\]"
    r"|\[[0:]*:ffff:(127\.[0-9.]+|7f[0-9a-f]{2}:[0-9a-f]{1,4})\])(:[0-9]+)?([/?#]|$)"
)
_HOST = (
    r"^https?://(\[[0-9A-Fa-f:.]+(%[^\]]*)?\]|[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?\.?)"
    r"(:[0-9]+)?([/?#]|$)"
)


def url_field(field: Schema, *, query: bool) -> Schema:
    """Return *field* as one that holds a URL, as `values.url_fault` takes it."""
    marks = ("#",) if query else ("#", "?")
    no_marks = " && ".join(f"!self.contains('{mark}')" for mark in marks)
    rules = (
        (
            r"self.matches('^[!-~]+$') && !self.contains('\\')",
            "has white space or characters that a URL cannot hold",
        ),
        ("self.matches('^https?://')", "does not begin with https://"),
        (no_marks, "has a fragment" if query else "has a query or a fragment"),
        ("!self.matches('^https?://[^/?#]*@')", "has a user name or password"),
        (f"self.matches(r'{_HOST}')", "has no valid host or port"),
        (
            f"self.startsWith('https://') || self.matches(r'{_LOOPBACK}')",
            "is http; that is taken for loopback hosts only",
        ),
    )
    hint = "write https://<host>, with a path where needed"
    bare = {key: value for key, value in field.items() if key != "pattern"}
    return bare | {RULES: [rule(Code.BAD_URL, one, f"{why}; {hint}") for one, why in rules]}


NO_NULLS = rule(
    Code.BAD_VALUE,
    "self.all(key, dyn(self[key]) != null)",
    "null is not a value; leave the key out, or write a list of values",
)
NO_PRIVATE_PEM = rule(
    Code.BAD_KEY_MATERIAL,
    "!self.contains('PRIVATE KEY-----')",
    "holds a private key; write the CA's certificates in PEM",
)
AUDIENCES = (
    rule(
        Code.MISSING_FIELD,
        "has(self.aud) || has(self.clients)",
        "aud is required and missing; write the broker's own URL, or clients where people sign in",
    ),
    rule(
        Code.BAD_VALUE,
        "!has(self.aud) || !has(self.clients) || self.clients.all(one, !(one in self.aud))",
        "a client is in aud too; write it under clients for people's ID tokens, "
        "under aud for workloads",
    ),
    rule(
        Code.BAD_VALUE,
        "!has(self.authorizedParties) || has(self.aud)",
        "authorizedParties has no effect without aud: the azp of a person's ID token must be one "
        "of clients; remove it, or write aud",
    ),
)
PINNED = tuple(
    rule(
        Code.KEYS_CONTRADICT,
        f"!has(self.jwks) || !has(self.{name})",
        f"keys are pinned with jwks, so nothing is ever fetched and {name} is never used; "
        f"remove jwks or {name}",
    )
    for name in ("jwksUri", "issInternal", "bearerTokenFile")
)


def providers() -> Iterator[Schema]:
    """Yield the rules that compare `provider` with `iss`, from the provider table."""
    known = {name: profile.issuers for name, profile in PROFILES.items() if profile.issuers}
    for name, issuers in known.items():
        yield rule(
            Code.PROVIDER_CONTRADICTS,
            f"!has(self.provider) || self.provider == '{name}'"
            f" || !self.iss.matches(r'^({issuers.pattern})$')",
            f"another provider would switch off the checks for tokens of"
            f" {PROFILES[name].display_name}; write {name}, or leave provider out",
        )
    likely = {name: profile.looks_like for name, profile in PROFILES.items() if profile.looks_like}
    yield rule(
        Code.PROVIDER_FORGOTTEN,
        f"has(self.provider) || self.iss.matches(r'^({_any(known.values())})$')"
        f" || !self.iss.matches(r'{_any(likely.values())}')",
        f"provider is left out, and iss looks like an issuer of one of {', '.join(likely)};"
        f" write which, or if it is none of these, provider: {GENERIC}",
    )


def _any(patterns: Iterable[re.Pattern[str]]) -> str:
    return "|".join(pattern.pattern for pattern in patterns)


_OPERATORS = ", ".join(f"'{name}'" for name in schema.OPERATORS)
KNOWN_OPERATORS = rule(
    Code.UNKNOWN_OPERATOR,
    f"self.all(operator, operator in [{_OPERATORS}])",
    f"not an operator; the operators are {', '.join(schema.OPERATORS)}",
)
NAMED_CLAIMS = rule(
    Code.BAD_KEY,
    f"self.all(key, key.startsWith('{KEY_PREFIX}') && key != '{KEY_PREFIX}')",
    f"a key names a claim as {KEY_PREFIX}<claim>, such as {KEY_PREFIX}repository",
)


def _has(field: str, any_of: Iterable[str]) -> str:
    return " || ".join(f"'{one}' in self.{field}" for one in sorted(any_of))


WHOLE_CLUSTER = rule(
    Code.NOT_ON_THE_CLUSTER,
    # By `in`, since the API server takes `exists` over two such lists for too costly.
    f"!({_has('action', BROKER_ACTIONS)}) || {_has('resource', schema.EVERYTHING)}",
    f"{' and '.join(sorted(BROKER_ACTIONS))} are about the whole cluster and have no effect on less; "
    "write * in a statement of its own",
)
CONDITIONS = rule(
    Code.ROLE_WITHOUT_CONDITIONS,
    "has(self.principal) || has(self.condition)",
    "has neither principal nor condition, so nothing says whom it is for; "
    "write a condition that names the issuer and the owner",
)
NO_PRIVATE_MEMBERS = rule(
    Code.BAD_KEY_MATERIAL,
    " && ".join(f"!has(self.{name})" for name in sorted(PRIVATE_MEMBERS)),
    "a private key was put here; pin the public half only, and treat it as leaked",
)
