"""
The facts that the broker keeps about a provider: one `Profile` for each kind of issuer.

A provider's file holds one `Profile` and nothing else decides by provider: the rooms that verify,
admit and check documents, the client in a job, and docs/providers.md read these fields. Claims are
named as conditions name them, without `jwt:`, so a claim further in is a JSON Pointer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from federation.claims import Claims
from federation.errors import Reason
from federation.policy.conditions import keys

REGISTERED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti"})
"""Claims that any JWT may have (RFC 7519, section 4.1)."""

PERSONAL = frozenset(
    {
        *("name", "given_name", "family_name", "middle_name", "nickname", "preferred_username"),
        *("profile", "picture", "website", "email", "gender", "birthdate", "zoneinfo", "locale"),
        *("phone_number", "address", "upn", "unique_name", "username", "user_name", "login"),
    }
)
"""
Claims that describe a person in a token of any provider: the standard ones (OpenID Connect Core 1.0,
section 5.1), and names that are usual for the same.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """
    A situation in which only Roles that name one of *claims* in a positive condition may admit.

    The signature of such a token is valid, but somebody who does not own the code may have
    caused the job. A Role that never mentions the situation was not written for it.
    """

    applies: Callable[[Claims], bool]
    """Return whether a token's claims are of this situation."""
    claims: tuple[str, ...]
    sentence: str
    """The sentence for the caller when no Role meets the demand."""
    wildcard_admits: str
    """The tokens that a condition on one of *claims* admits if its value is only wildcards."""
    examples: tuple[str, ...] = ()
    """Values of the first of *claims* in this situation. A pattern that matches one of them
    admits it without saying so."""

    @property
    def keys(self) -> frozenset[str]:
        """The condition keys of *claims*."""
        return keys(*self.claims)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The form that each value of a claim has."""

    whole: re.Pattern[str]
    """Matches every value completely."""
    words: str
    """The form in words, such as "a full ref like refs/heads/main"."""
    begins: tuple[str, ...] = ()
    """Every value begins with one of these."""
    values: frozenset[str] = frozenset()
    """The only values that there are, if they are few."""
    slips: tuple[tuple[re.Pattern[str], str], ...] = ()
    """Usual mistakes, each with the replacement that mends it (as for `re.sub`)."""


DIGITS = Shape(whole=re.compile(r"[0-9]+"), words="a number, such as 412890077")
BOOLEAN = Shape(
    whole=re.compile(r"true|false"),
    words="true or false",
    values=frozenset({"true", "false"}),
    slips=(
        (re.compile(r"(?i)yes|on|true|1"), "true"),
        (re.compile(r"(?i)no|off|false|0"), "false"),
    ),
)
UUID = Shape(
    whole=re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    words="a UUID in lower case",
    slips=((re.compile(r"\{([0-9a-f-]{36})\}"), r"\1"),),
)
BRACED_UUID = Shape(
    whole=re.compile(r"\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}"),
    words="a UUID in braces, such as {41d0b7e2-0c55-4f0a-9d3e-7b1f2a6c8e90}",
    begins=("{",),
    slips=((re.compile(r"([0-9a-f-]{36})"), r"{\1}"),),
)


def full_ref(*kinds: str) -> Shape:
    """The shape of a full ref, of branches, of tags and of *kinds*."""
    every = ("heads", "tags", *kinds)
    return Shape(
        whole=re.compile(rf"refs/(?:{'|'.join(every)})/[^*]+"),
        words="a full ref, such as refs/heads/main",
        begins=tuple(f"refs/{kind}/" for kind in every),
        slips=(
            (re.compile(r"refs?/(?:heads?|branch(?:es)?)/(.+)"), r"refs/heads/\1"),
            (re.compile(r"refs?/tags?/(.+)"), r"refs/tags/\1"),
            (re.compile(r"(?:heads/)?((?!refs?/)[^/]+(?:/.+)?)"), r"refs/heads/\1"),
        ),
    )


FULL_REF = full_ref("pull")
BRANCH = Shape(
    whole=re.compile(r"(?!refs/heads/)[^*]+"),
    words="a branch's short name, such as main",
    slips=((re.compile(r"refs/heads/(.+)"), r"\1"),),
)
SHORT_REF = Shape(
    whole=re.compile(r"(?!refs/(?:heads|tags)/)[^*]+"),
    words="a short name, such as main",
    slips=((re.compile(r"refs/(?:heads|tags)/(.+)"), r"\1"),),
)


URL_SLIPS = ((re.compile(r"(?:https?://[^/]+/|git@[^:]+:)(.+?)(?:\.git)?/?"), r"\1"),)
"""A whole URL in place of a path."""


def path(example: str) -> Shape:
    """The shape of a path like *example*."""
    return Shape(
        whole=re.compile(r"[^/:@*\s]+(?:/[^/:@*\s]+)+"),
        words=f"a path, such as {example}",
        slips=URL_SLIPS,
    )


def one_of(*values: str) -> Shape:
    """The shape of a claim with few *values*."""
    return Shape(
        whole=re.compile("|".join(map(re.escape, values))),
        words=" or ".join(values),
        values=frozenset(values),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerClaims:
    """The claims that say who owns the code, by the form of their values."""

    ids: tuple[str, ...] = ()
    """The owner's id, which survives a rename."""
    names: tuple[str, ...] = ()
    """The owner's name and nothing else."""
    code_ids: tuple[str, ...] = ()
    """The id of a repository, project or pipeline. It fixes the owner without naming it."""
    paths: tuple[str, ...] = ()
    """A path that begins with the owner, as in `OWNER/NAME`."""
    composed: Mapping[str, re.Pattern[str]] = field(default_factory=lambda: MappingProxyType({}))
    """Claims of several parts, such as `sub`. The pattern finds a value's beginning, up to the end
    of the part that fixes the owner."""
    separator: str = ":"
    """The character that ends a part of *composed*."""
    whole_issuer: tuple[str, ...] = ()
    """Claims of *ids*, *names* and *composed* that all tokens of an issuer of one's own share. They
    tell its owner from strangers at a shared issuer, and say nothing at one's own. Of *composed*
    that is the beginning alone."""
    other_paths: tuple[str, ...] = ()
    """Paths that begin with an owner, but not with the owner of the code that runs."""
    path_and_owner: tuple[str, str] | None = None
    """Two claims of which the first is a path whose part before the last `/` is the second."""
    programs: tuple[str, ...] = ()
    """Claims of *ids* or *groups* that name the program that asked for the token. They say who only
    where the program is not one that people sign in to: there everybody's token has the same."""
    groups: tuple[str, ...] = ()
    """Lists of groups or roles that an administrator of the issuer gave. They say who somebody is,
    unless strangers get tokens from the issuer too."""
    more_groups: re.Pattern[str] | None = None
    """Further claims of that kind, whose names an administrator chooses."""
    everybody: re.Pattern[str] | None = None
    """Values of *groups* and *more_groups* that everybody at the issuer has."""
    pin: tuple[str, str] = ("sub", "<the caller's sub>")
    """The claim that a hint advises to pin, and the placeholder for its value."""
    sub_begins: str = ""
    """The beginning of a `sub` that names the owner next, for hints."""
    renamed_sub: tuple[re.Pattern[str], str] | None = None
    """Found in a `sub` of the form with ids that a rename brings, and the replacement that makes
    the older form of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameWithId:
    """Claims that hold names, which change hands, and the ids that do not."""

    names: tuple[str, ...]
    ids: tuple[str, ...]
    """The one that a hint advises comes first."""
    where: str = ""
    """The place where an operator can look the id up."""
    sub_name: re.Pattern[str] | None = None
    """Found in a `sub` that holds such a name."""
    sub_id: re.Pattern[str] | None = None
    """Found in a `sub` that holds such an id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Two claims of which certain values never meet in one token."""

    claim: str
    values: frozenset[str]
    other: str
    begins: str
    """If *claim* has one of *values*, *other* begins with this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InVariable:
    """A job finds its token in the first of these environment variables that is set."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InFile:
    """A job finds its token in the file *path*, or in one that the variable *named_by* names."""

    path: str
    named_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByRequest:
    """A job asks the URL in *url* for a token, with the secret in *bearer* (GitHub's protocol)."""

    url: str
    """The environment variable that holds the URL."""
    bearer: str
    """The environment variable that holds the secret."""
    member: str = "value"
    """The member of the JSON answer that holds the token."""
    method: str = "GET"
    query: str = "audience={audience}"
    """Text to add to the URL's query; `{audience}` stands for the audience."""
    scheme: str = "bearer"
    """The word before the secret in the header `Authorization`, empty if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByCommand:
    """A job runs *command*, which prints a token; `{audience}` in it stands for the audience."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByMetadata:
    """
    A machine asks its metadata server at *url*, which holds `{audience}`, with *headers*.

    The server's answer has the same headers. A metadata server has a link-local address, so the
    URL is plain http, and the request never goes through a proxy.
    """

    url: str
    headers: tuple[tuple[str, str], ...]


TokenSource: TypeAlias = InVariable | InFile | ByRequest | ByCommand | ByMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAlike:
    """A runner that sets the variables of another system, and gives its jobs no ID token."""

    name: str
    mark: tuple[str, str]
    """The environment variable that tells it, and its value."""
    advice: str
    """Advice for such a job, in place of the provider's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobToken:
    """The place of a job's token at the provider; `federation exchange` looks there."""

    marks: tuple[tuple[str, str], ...]
    """Environment variables of which any one tells such a job, each with its value or, if that is
    empty, with any value."""
    sources: tuple[TokenSource, ...]
    """Tried in this order."""
    advice: str
    """Lines to add to a job that has no token. `{audience}` stands for the audience."""
    fork_advice: str = ""
    """Advice instead if the job is of a fork's pull request, by the file `GITHUB_EVENT_PATH`."""
    look_alikes: tuple[LookAlike, ...] = ()
    """Runners that have the marks of the provider and give no ID tokens."""
    also_marked_as: tuple[str, ...] = ()
    """Providers whose marks such a job has too."""
    platform: bool = False
    """True if jobs of other CI systems run there, so that a mark of theirs decides."""
    only_if_asked: bool = False
    """True if the client looks there only with `--from`. Then *marks* is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All facts about one provider."""

    name: str
    """As the field `provider` of a JwtIssuer document has it."""
    display_name: str
    ci: bool = True
    """True if its tokens are made for jobs, with the claims below and no others."""

    # Which issuers it has
    issuers: re.Pattern[str] | None = None
    """The whole `iss` of the issuers that are known to be this provider's."""
    looks_like: re.Pattern[str] | None = None
    """Found in an `iss` of an installation of one's own, so its document must say `provider`."""
    issuer_example: str
    """An `iss`, for the documentation."""
    shared_hosts: tuple[str, ...] = ()
    """Hosts that give tokens to strangers too; one that begins with `.` includes all below it."""
    own_paths: re.Pattern[str] | None = None
    """The path of an issuer that serves one owner alone, though its host is shared."""
    no_issuers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """An `iss` that people write by mistake, each with what is wrong with it."""
    keys_elsewhere: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """For an `iss`, the URL on another origin at which the provider itself publishes its keys."""
    default_audiences: re.Pattern[str] | None = None
    """Audiences of tokens that asked for none, so that many services get such tokens."""
    audience_fixed: bool = False
    """True if a job cannot choose the audience."""

    # What its tokens look like
    algorithms: frozenset[str] = frozenset({"RS256"})
    required: tuple[str, ...] = ()
    """Claims that make a token one of a job."""
    lacking: Reason = Reason.MISSING_CLAIM
    """The reason of the refusal when a required claim is missing."""
    single_use: bool = True
    """True if a subject token is accepted once, unless the issuer's document says otherwise."""
    audience_list: bool = False
    """True if `aud` may list other audiences beside ours."""
    azp_is_client: bool = True
    """True if `azp`, where a token has it, names the client that the token was issued to."""
    id_token_typ: str | None = None
    """The claim `typ` of ID tokens, if the provider's access tokens and ID tokens differ by it."""
    scalars: frozenset[str] = frozenset()
    """Claims that are one value."""
    lists: frozenset[str] = frozenset()
    """Claims that are a list of strings."""
    objects: frozenset[str] = frozenset()
    """Claims that are an object, and what lies within them is not listed."""
    more_claims: re.Pattern[str] | None = None
    """Claims that an administrator can add."""
    telling: tuple[str, ...] = ()
    """Claims that only such tokens have, so that a Role on one tells the provider."""
    telling_sub: re.Pattern[str] | None = None
    """The beginning of a `sub` that only such tokens have, so that a Role on one tells the provider.
    Only providers with *demands* need it: a Role on `sub` alone is open without them."""
    shapes: Mapping[str, Shape] = field(default_factory=lambda: MappingProxyType({}))

    # What its claims prove
    owner: OwnerClaims = OwnerClaims()
    selective: tuple[str, ...] = ("sub",)
    """Claims by which the catalog files Roles: those that few Roles have in common come first."""
    free: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Claims that a stranger may set to any value, each with the reason."""
    personal: frozenset[str] = frozenset()
    """Claims that name a person in a job's token, apart from ids that mean nothing elsewhere. No
    rule of the broker may need them, since audit events leave them out."""
    circumstances: frozenset[str] = frozenset()
    """Claims about how a job runs. A stranger's own project can have each of their values."""
    demands: tuple[Demand, ...] = ()
    names: tuple[NameWithId, ...] = ()
    ref_claims: tuple[str, ...] = ()
    """Claims that restrict the branch or tag, or the kind of run where there is none."""
    ref_within: Mapping[str, re.Pattern[str]] = field(default_factory=lambda: MappingProxyType({}))
    """Claims of several parts that can restrict the ref too, and the part that does."""
    environment_claims: tuple[str, ...] = ()
    """Claims that restrict the environment."""
    environment_within: re.Pattern[str] | None = None
    """Found in a `sub` that restricts the environment."""
    environment_replaces_ref: bool = False
    """True if the `sub` of a job with an environment names that and no ref."""
    open_environments: bool = False
    """True if a job on any branch can name an environment that has no protection rules."""
    short_ref: tuple[str, tuple[str, ...]] | None = None
    """A claim in which a branch and a tag of one name look alike, and those that tell them apart."""
    fork_told_by: str = ""
    """The only claim that tells a fork's job from one's own."""
    never_together: tuple[Together, ...] = ()
    file_refs: tuple[str, ...] = ()
    """Claims that hold a file and, after an `@`, the ref that it was read from."""
    verified_by: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Claims with which people name themselves, and for each the claim that says it was checked
    (empty if there is none)."""

    # What refusals, hints and documentation say
    only_if: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Claims that not every token has, and for each what must be so: "only if the job …"."""
    misnamed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Names that people write for a claim, each with the claim."""
    ref_example: tuple[tuple[str, str], ...] = ()
    """Claims and values that restrict a Role to one branch."""
    job_token: JobToken | None = None

    def lists_claim(self, claim: str) -> bool:
        """True if the provider's tokens may have the top-level *claim*."""
        return (
            claim in self.scalars
            or claim in REGISTERED
            or claim in self.lists
            or claim in self.objects
            or bool(self.more_claims and self.more_claims.fullmatch(claim))
        )
