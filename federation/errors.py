"""
Exceptions of the broker, and the reasons for which it refuses a request.

    FederationError
    ├── HttpError              an error that a caller gets as a response: status, sentence, headers
    │   ├── Refusal            a refused request: reason, public sentence, evidence
    │   ├── NotFound           a path or method that does not exist (web/refusals)
    │   └── GatewayError       errors of gateway requests (gateway/refusals)
    ├── DocumentsRefused       a set of documents that was not adopted: its problems
    └── SettingsRefused        settings that cannot be used: their problems

An HttpError has two readers. The caller gets `public`, which contains only what the caller may
know. The operator finds `evidence` in the log and in the audit event, under the same request id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from federation.pages import of_refusal


class Reason(StrEnum):
    """The stable identifier of a refusal. `docs/refusals.md` says what to do about each."""

    MALFORMED_TOKEN = "malformed_token"
    TOKEN_TOO_LARGE = "token_too_large"
    UNTRUSTED_ISSUER = "untrusted_issuer"
    UNSUPPORTED_ALGORITHM = "unsupported_algorithm"
    WRONG_TOKEN_TYPE = "wrong_token_type"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    WRONG_AUDIENCE = "wrong_audience"
    WRONG_PARTY = "wrong_party"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    MISSING_CLAIM = "missing_claim"
    NOT_A_CI_TOKEN = "not_a_ci_token"
    EVENT_NOT_ALLOWED = "event_not_allowed"
    NO_ROLE_ADMITS = "no_role_admits"
    ROLE_NOT_ADMITTED = "role_not_admitted"
    POLICY_MISSING = "policy_missing"
    ALREADY_USED = "already_used"
    REVOKED = "revoked"
    INVALID_TARGET = "invalid_target"
    INVALID_SCOPE = "invalid_scope"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    INVALID_REQUEST = "invalid_request"
    KEYS_UNAVAILABLE = "keys_unavailable"
    STATE_UNAVAILABLE = "state_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    DOCUMENTS_UNAVAILABLE = "documents_unavailable"
    TOO_MANY_FAILURES = "too_many_failures"
    TOO_MANY_REVOCATIONS = "too_many_revocations"
    TOO_MANY_EXCHANGES = "too_many_exchanges"
    SERVER_ERROR = "server_error"
    """An unexpected exception. The error boundary reports and records it; nothing raises it."""

    @property
    def sentence(self) -> str:
        """The public sentence, which any caller may read."""
        return _SENTENCES[self]

    @property
    def oauth_error(self) -> str:
        """The `error` code of RFC 6749, section 5.2, or RFC 8693, section 2.2.2."""
        if self.temporary or self in _TOO_MANY:
            return "temporarily_unavailable"
        return self.value if self in _OAUTH_CODES else "invalid_request"

    @property
    def status(self) -> int:
        """
        The HTTP status of a response with this reason.

        It is 400 for every refusal that is final, since OAuth clients look for an error body
        at no other status (RFC 6749, section 5.2).
        """
        if self in _TOO_MANY:
            return 429
        if self is Reason.SERVER_ERROR:
            return 500
        return 503 if self.temporary else 400

    @property
    def page(self) -> str:
        """The page of the docs about this reason, with the anchor of its section."""
        return of_refusal(self.value)

    @property
    def temporary(self) -> bool:
        """True if the broker could not decide, so that the same request may succeed later."""
        return self in _TEMPORARY


_TEMPORARY = frozenset(
    {
        Reason.KEYS_UNAVAILABLE,
        Reason.STATE_UNAVAILABLE,
        Reason.AUDIT_UNAVAILABLE,
        Reason.DOCUMENTS_UNAVAILABLE,
    }
)
_TOO_MANY = frozenset(
    {
        Reason.TOO_MANY_FAILURES,
        Reason.TOO_MANY_REVOCATIONS,
        Reason.TOO_MANY_EXCHANGES,
    }
)
_OAUTH_CODES = frozenset(
    {
        Reason.INVALID_TARGET,
        Reason.INVALID_SCOPE,
        Reason.UNSUPPORTED_GRANT_TYPE,
        Reason.SERVER_ERROR,
    }
)
_SENTENCES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.MALFORMED_TOKEN: "The subject token is not a well-formed JWT.",
        Reason.TOKEN_TOO_LARGE: "The subject token is larger than 16 KiB.",
        Reason.UNTRUSTED_ISSUER: "The subject token's issuer is not trusted here.",
        Reason.UNSUPPORTED_ALGORITHM: (
            "The subject token's header asks for something this issuer's profile does not allow."
        ),
        Reason.WRONG_TOKEN_TYPE: "The subject token is of a type that is not exchanged here.",
        Reason.UNKNOWN_KEY: "The subject token names a key that its issuer does not publish.",
        Reason.BAD_SIGNATURE: "The subject token's signature does not verify.",
        Reason.WRONG_AUDIENCE: "The subject token was issued for another audience.",
        Reason.WRONG_PARTY: "The subject token was issued to a client that is not accepted here.",
        Reason.EXPIRED: "The subject token has expired.",
        Reason.NOT_YET_VALID: "The subject token is not valid yet.",
        Reason.MISSING_CLAIM: "The subject token lacks a required claim.",
        Reason.NOT_A_CI_TOKEN: "The subject token does not come from a CI job.",
        Reason.EVENT_NOT_ALLOWED: (
            "The event that started this job can be caused by outsiders, and no Role names it."
        ),
        Reason.NO_ROLE_ADMITS: "No Role admits the subject token.",
        Reason.ROLE_NOT_ADMITTED: "A Role that was asked for does not admit the subject token.",
        Reason.POLICY_MISSING: (
            "A Policy that the access token names is not in force, so the token allows nothing."
        ),
        Reason.ALREADY_USED: "The subject token was exchanged before; each is taken once.",
        Reason.REVOKED: "The token has been revoked.",
        Reason.INVALID_TARGET: "The audience cannot be granted.",
        Reason.INVALID_SCOPE: "The scope cannot be granted.",
        Reason.UNSUPPORTED_GRANT_TYPE: (
            "grant_type must be urn:ietf:params:oauth:grant-type:token-exchange."
        ),
        Reason.INVALID_REQUEST: "The request is malformed.",
        Reason.KEYS_UNAVAILABLE: "The issuer's keys cannot be fetched at the moment. Try again.",
        Reason.STATE_UNAVAILABLE: "The record of spent tokens is unavailable. Try again.",
        Reason.AUDIT_UNAVAILABLE: "The audit trail is unavailable. Try again.",
        Reason.DOCUMENTS_UNAVAILABLE: "The broker has not read its documents yet. Try again.",
        Reason.TOO_MANY_FAILURES: (
            "Too many requests from this address failed in the last minute. Wait, then try again."
        ),
        Reason.TOO_MANY_REVOCATIONS: (
            "Too many tokens were revoked in the last minute. Wait, then try again."
        ),
        Reason.TOO_MANY_EXCHANGES: (
            "This token was exchanged too often in the last minute. Wait, then try again."
        ),
        Reason.SERVER_ERROR: "The broker failed. Its log has the details under this id.",
    }
)


class FederationError(Exception):
    """Base class of the errors that this program raises on purpose."""


class HttpError(FederationError):
    """
    An error that ends a request. It carries what the response needs.

    The error boundary in `web/refusals` turns it into the response. *public* is the sentence
    for the caller; it must hold nothing that the caller may not know.
    """

    status: int = 500
    headers: Mapping[str, str] = MappingProxyType({})
    """Extra response headers, such as `Retry-After`."""
    reason: Reason | None = None

    def __init__(self, public: str, *, evidence: Mapping[str, object] | None = None) -> None:
        super().__init__(public)
        self.public = public
        self.evidence: Mapping[str, object] = dict(evidence or {})


class Refusal(HttpError):
    """
    A refused request: *reason* for programs, *public* for the caller, *evidence* for the operator.

    *public* defaults to the constant sentence of the reason. Any other text must contain only
    what this caller may know.
    """

    reason: Reason

    def __init__(
        self,
        reason: Reason,
        public: str | None = None,
        *,
        evidence: Mapping[str, object] | None = None,
        retry_after_seconds: int = 5,
    ) -> None:
        super().__init__(reason.sentence if public is None else public, evidence=evidence)
        self.reason = reason
        self.status = reason.status
        self.retry_after_seconds = retry_after_seconds
        if self.status in {429, 503}:
            self.headers = {"Retry-After": str(retry_after_seconds)}

    def __str__(self) -> str:
        facts = ", ".join(f"{key}={value!r}" for key, value in self.evidence.items())
        return f"{self.reason}: {self.public}" + (f" ({facts})" if facts else "")


class Severity(StrEnum):
    """An error keeps a set of documents from being adopted; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """A problem in a document: its place, what is wrong, and what to write instead."""

    path: str
    line: int
    """The first line is 1; 0 if the problem does not belong to one line."""
    code: str
    severity: Severity
    message: str
    kind: str = ""
    name: str = ""
    field: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}: " if self.line else f"{self.path}: " if self.path else ""
        subject = f" {self.kind}/{self.name}:" if self.kind else ""
        field = f" {self.field}:" if self.field else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}{self.severity}[{self.code}]{subject}{field} {self.message}{hint}"


class DocumentsRefused(FederationError):
    """A set of documents that was not adopted, with every problem found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class SettingsRefused(FederationError):
    """Settings that cannot be used, with every problem found, those of *documents* too."""

    def __init__(self, problems: Sequence[str], documents: Sequence[Problem] = ()) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)
        self.documents = tuple(documents)

    def __str__(self) -> str:
        return "\n".join(self.problems)


@dataclass(slots=True)
class Problems:
    """Collects what is refused in several steps, so that one start shows every mistake."""

    settings: list[str] = field(default_factory=list)
    documents: list[Problem] = field(default_factory=list)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep what is refused in the block, and go on after it."""
        try:
            yield
        except SettingsRefused as refused:
            self.settings += refused.problems
            self.documents += refused.documents
        except DocumentsRefused as refused:
            self.documents += refused.problems

    def refuse(self) -> None:
        """Raise SettingsRefused or DocumentsRefused, if anything was refused."""
        if self.settings:
            raise SettingsRefused(self.settings, self.documents)
        if self.documents:
            raise DocumentsRefused(self.documents)
