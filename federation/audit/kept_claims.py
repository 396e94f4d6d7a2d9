"""
The claims of a subject token that its audit event keeps, so that a decision can be understood later.

The setting `audit-claims` says whose. By default those of jobs and other workloads are kept, and
people's are not. What names a person is left out of a job's claims too: the provider table says
which claims those are. What belongs to one sign-in, and that no decision reads, is never kept.

The claims of one event take at most 8 KiB. A claim that does not fit, or that holds a token, is
named in `claims_cut`: an explanation that read half of a value would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from federation.audit.bounds import cut_list, looks_like_token, safe, without_tokens
from federation.documents.model import JwtIssuer
from federation.jose.strict_json import dumps_ascii
from federation.providers.profile import PERSONAL
from federation.providers.table import PROFILES

_MOST_BYTES = 8 * 1024
"""The most that all claims of an event take in the journal. Those of GitHub take 1.5 KiB."""
_FIRST = ("iss", "sub", "aud")
"""Claims that an explanation cannot do without: they are kept before all others."""

NO_DECISION = frozenset({"jti", "nonce", "at_hash", "c_hash", "s_hash", "auth_time", "sid", "cnf"})
"""Claims that tie a token to one sign-in, session or use. Events never keep them."""

_LEFT_OUT: Mapping[str, frozenset[str]] = MappingProxyType(
    {name: NO_DECISION | PERSONAL | profile.personal for name, profile in PROFILES.items()}
)
"""By provider: what the event of a job does not keep, if `audit-claims` is `ci`."""

MAY_BE_LEFT_OUT = frozenset[str]().union(*_LEFT_OUT.values())
"""All claims that some event does not keep though its token had them."""


class AuditClaims(StrEnum):
    """Whose claims the audit events of exchanges keep."""

    NONE = "none"
    CI = "ci"
    ALL = "all"

    def left_out(self, issuer: JwtIssuer, claims: Mapping[str, object]) -> frozenset[str] | None:
        """
        Return the names of claims that the event of a token of *issuer* does not keep.

        None means that it keeps none at all. With `ci` that is so where the token may be a person's:
        one for a client of the issuer, or one of a provider that is not made for workloads.
        """
        if self is AuditClaims.NONE:
            return None
        if self is AuditClaims.ALL:
            return NO_DECISION
        if not issuer.profile.ci or issuer.clients_of(claims):
            return None
        return _LEFT_OUT[issuer.provider]


def left_out_by_default(provider: str) -> frozenset[str]:
    """Return the names of claims that events of jobs of *provider* lack, if not all are kept."""
    return _LEFT_OUT[provider]


def kept(
    claims: Mapping[str, object], left_out: frozenset[str]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return *claims* without those *left_out*, within bounds, and the names of those that were cut."""
    chosen = dict(claims)
    for name in left_out.intersection(claims):
        del chosen[name]
    written = dumps_ascii(chosen)
    if len(written) <= _MOST_BYTES and not looks_like_token(written):
        return chosen, ()
    return _bounded(chosen)


def _bounded(claims: Mapping[str, object]) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return as many of *claims* as fit, the small ones first, without tokens."""
    sizes = {
        name: len(dumps_ascii(name)) + len(dumps_ascii(value)) + len(":,")
        for name, value in claims.items()
    }
    fitting: dict[str, object] = {}
    changed: dict[str, None] = {}
    left = _MOST_BYTES - len("{}")
    for name in sorted(claims, key=lambda name: (name not in _FIRST, sizes[name])):
        shown, value = without_tokens(name), safe(claims[name])
        if shown != name or value != claims[name]:
            changed[shown] = None
        size = len(dumps_ascii(shown)) + len(dumps_ascii(value)) + len(":,")
        if size <= left and shown not in fitting:
            fitting[shown] = value
            left -= size
        else:
            changed[shown] = None
    in_order = dict.fromkeys(map(without_tokens, claims))
    return {n: fitting[n] for n in in_order if n in fitting}, cut_list(tuple(changed))
