"""
The answers of the broker's API for people, read into values.

They are foreign input: a member of the wrong type makes the answer unreadable, an unknown member
is passed over. Nothing here is safe to show as it is: templates escape it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Condition(_Answer):
    """A condition as a document has it."""

    operator: str
    key: str
    values: list[str]


class Statement(_Answer):
    """A statement of a policy: one that the person has, or one that a Role gives."""

    policy: str
    sid: str
    effect: str
    actions: list[str]
    resources: list[str]
    conditions: list[Condition] = Field(default_factory=list)
    applies: bool = True


class Whoami(_Answer):
    """The subject of a token, and the statements of its policies."""

    sub: str
    issuer: str
    fed_issuer: str = ""
    roles: list[str] = Field(default_factory=list)
    policies: list[str] = Field(default_factory=list)
    policies_missing: list[str] = Field(default_factory=list)
    issued: float
    expires: float
    claims: dict[str, object] = Field(default_factory=dict)
    statements: list[Statement] = Field(default_factory=list)


class Decision(_Answer):
    """An access, allowed or not, and the statement that settled it."""

    action: str
    resource: str
    allowed: bool
    policy: str | None = None
    sid: str | None = None
    effect: str | None = None


class Decisions(_Answer):
    """The answer to `can-i`."""

    access: list[Decision]


class Problem(_Answer):
    """A problem of a document."""

    code: str
    severity: str
    field: str | None = None
    message: str
    hint: str | None = None


class Document(_Answer):
    """A document in force."""

    kind: str
    name: str
    source: str | None = None
    spec: dict[str, object] = Field(default_factory=dict)
    problems: list[Problem] = Field(default_factory=list)


class Documents(_Answer):
    """The documents in force, and what keeps newer ones from being in force."""

    documents: list[Document]
    degraded: list[str] = Field(default_factory=list)


class Finding(Condition):
    """A condition beside the token's value."""

    claim: object = None
    holds: bool


class Evaluation(_Answer):
    """One Role for one token, condition by condition."""

    name: str
    admitted: bool
    conditions: list[Finding]
    refusal: str | None = None
    would_admit: bool = False
    """True if it is a shadow Role, and would admit the token if it were none."""

    @property
    def failed(self) -> int:
        """The number of conditions that do not hold."""
        return sum(not finding.holds for finding in self.conditions)

    @property
    def elsewhere(self) -> bool:
        """True if the Role is for tokens of another issuer."""
        return any(f.key == "jwt:iss" and not f.holds for f in self.conditions)

    @property
    def distance(self) -> tuple[bool, bool, int, str]:
        """The closest Role sorts first: it admits, then of the same issuer, then fewest failures."""
        return not self.admitted, self.elsewhere, self.failed, self.name


class Actor(_Answer):
    """The caller of an event."""

    sub: str = ""
    issuer: str = ""
    fed_issuer: str = ""


class Event(_Answer):
    """An event of the trail, as the journal has it."""

    event_id: str
    request_id: str = ""
    time: str = ""
    path: str = ""
    method: str = ""
    response_code: int = 0
    actor: Actor | None = None
    actions: list[str] = Field(default_factory=list)
    namespace: str = ""
    resource: str = ""
    roles: list[str] = Field(default_factory=list)
    shadow_roles: list[str] = Field(default_factory=list)
    policies: list[str] = Field(default_factory=list)
    shadow_policies: list[str] = Field(default_factory=list)
    reason: str | None = None
    custom_message: str = ""
    token_sha256: str | None = None
    claims: dict[str, object] | None = None
    claims_cut: list[str] = Field(default_factory=list)
    """The names of claims that are not there, or not as the token said them."""

    @property
    def granted(self) -> bool:
        """True if the request was answered with success."""
        return self.response_code < 400 and not self.reason

    @property
    def is_exchange(self) -> bool:
        """True if a token was exchanged, or was to be."""
        return self.path == "/oauth/token"


class TokenCheck(_Answer):
    """The result of the checks of the token itself."""

    valid: bool
    reason: str | None = None


class Explanation(_Answer):
    """The output of `federation explain --format json`, with the claims and the rule to write."""

    token: TokenCheck | None = None
    admitted: bool
    roles: list[Evaluation]
    shadow_roles: list[Evaluation] = Field(default_factory=list)
    policies: list[str]
    access: list[Decision]
    claims: dict[str, object] = Field(default_factory=dict)
    rule: str | None = None
    rule_notes: list[str] = Field(default_factory=list)
    event: Event | None = None
    """The event that was asked about."""
    notes: list[str] = Field(default_factory=list)
    """Differences between then and now, and claims that the trail does not keep."""

    @property
    def closest(self) -> list[Evaluation]:
        """Every Role, the closest first."""
        return sorted(self.roles, key=lambda role: role.distance)


class Denial(_Answer):
    """A statement that denies what a Role gives, always or under conditions."""

    policy: str
    sid: str
    always: bool
    role: str = ""
    """The other Role that brings the statement along; empty for the Role itself."""


class Giver(_Answer):
    """A Role that gives an access, and what a token must say."""

    name: str
    policy: str
    sid: str
    conditions: list[Condition] = Field(default_factory=list)
    denied_by: list[Denial] = Field(default_factory=list)
    unless_narrowed: bool = False
    shadowed: bool = False


class WhoCan(_Answer):
    """The Roles that give one access."""

    action: str
    resource: str
    roles: list[Giver]
    notes: list[str] = Field(default_factory=list)


class RoleGives(_Answer):
    """The grants of one Role, and the conditions on a token."""

    role: str
    conditions: list[Condition]
    grants: list[Statement]
    notes: list[str] = Field(default_factory=list)


class AuditPage(_Answer):
    """Some events, the newest first, and where the older ones begin."""

    events: list[Event]
    next: str | None = None
    replica: str = ""
    note: str = ""
