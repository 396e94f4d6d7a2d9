"""
The facts of a repository that its documents need: the ids that survive a rename, and its branch.

They are asked of the API of GitHub or GitLab. A token for it, which private repositories need, goes to
that server alone, over https, and no redirect is followed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit

from federation.client import ClientError
from federation.client.http import Sender, json_of, require_secure_url
from federation.text import printable

Kind = Literal["github", "gitlab"]

_PUBLIC: Mapping[Kind, str] = {"github": "https://github.com", "gitlab": "https://gitlab.com"}
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAMES: Mapping[Kind, re.Pattern[str]] = {
    "github": re.compile(rf"{_PART}/{_PART}"),
    "gitlab": re.compile(rf"{_PART}(?:/{_PART})+"),
}
_WORDS: Mapping[Kind, str] = {"github": "OWNER/NAME", "gitlab": "GROUP/PROJECT"}
_ID = re.compile(r"[0-9]{1,20}")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/@=-]{0,199}")
"""Names without characters that have a meaning in the patterns and rules of a workflow."""
_TOKEN = re.compile(r"[!-~]+")
_GITHUB_TENANT = ".ghe.com"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of GitHub or a project of GitLab, by names and ids."""

    kind: Kind
    server: str
    """The address of the site, without a slash at its end."""
    name: str
    """`OWNER/NAME`, or the whole path of a project."""
    id: str
    owner_id: str
    branch: str

    @property
    def owner(self) -> str:
        """The owner, or the group that the project is in."""
        return self.name.rpartition("/")[0]

    @property
    def issuer_name(self) -> str:
        """A name for its JwtIssuer: that of the kind, and of the site if it is one's own."""
        if self.server == _PUBLIC[self.kind]:
            return self.kind
        return re.sub(r"[^a-z0-9]+", "-", f"{self.kind}-{urlsplit(self.server).netloc}".lower())

    @property
    def iss(self) -> str:
        """The `iss` of its jobs' ID tokens."""
        if self.kind == "gitlab":
            return self.server
        host = urlsplit(self.server).netloc
        if self.server == _PUBLIC["github"]:
            return "https://token.actions.githubusercontent.com"
        if host.endswith(_GITHUB_TENANT):
            return f"https://token.actions.{host}"
        return f"{self.server}/_services/token"


def token_variables(kind: Kind, server: str, named_host: str) -> tuple[str, ...]:
    """
    Return the variables that may hold a token for the API of *server*, as gh and glab read them.

    A token for one server is not sent to another. *named_host* is the value of GITLAB_HOST, which
    says whose GITLAB_TOKEN is.
    """
    host = urlsplit(server).netloc
    public = server == _PUBLIC[kind]
    if kind == "github":
        tenant = host.endswith(_GITHUB_TENANT)
        own = ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
        return ("GH_TOKEN", "GITHUB_TOKEN") if public or tenant else own
    named = named_host.removeprefix("https://").rstrip("/")
    return ("GITLAB_TOKEN",) if named == host or (public and not named) else ()


def public_server(kind: Kind) -> str:
    """Return the address of github.com or gitlab.com."""
    return _PUBLIC[kind]


def require_server(given: str) -> str:
    """Return the address of a site, without a slash at its end. Raises: ClientError."""
    server = given.strip().rstrip("/")
    require_secure_url(server, "The server")
    if not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._-]+)*", server):
        raise ClientError(
            f"The server {printable(given, 100)!r} is no address of a site.",
            "Write it as https://git.example.com.",
        )
    return server


def repository_name(kind: Kind, given: str, server: str) -> str:
    """
    Return the name of the repository in *given*: its name, its address, or what `git clone` takes.

    Raises: ClientError.
    """
    host = re.escape(urlsplit(server).netloc)
    name = given.strip().removesuffix("/").removesuffix(".git")
    name = re.sub(rf"\A(?:(?:https?|ssh)://(?:[^/@]+@)?{host}/|git@{host}:)", "", name)
    if not _NAMES[kind].fullmatch(name) or ".." in name:
        raise ClientError(
            f"{printable(given, 100)} is no name of a repository on {server}.",
            f"Write {_WORDS[kind]}. For a server of your own, give its address with --server.",
        )
    return name


def require_id(text: str, what: str) -> str:
    """Return *text* if it is an id of digits. Raises: ClientError."""
    if not _ID.fullmatch(text):
        raise ClientError(f"{what} {printable(text, 60)!r} is no id.", "An id has digits alone.")
    return text


def require_branch(text: str) -> str:
    """Return *text* if it can be the name of a branch. Raises: ClientError."""
    if not _BRANCH.fullmatch(text) or text.startswith("refs/"):
        raise ClientError(
            f"{printable(text, 60)!r} is no branch.",
            "Write the branch alone, such as main, without refs/heads/ before it. Names with other"
            " characters than letters, digits and . _ / @ = - are not taken.",
        )
    return text


def look_up(kind: Kind, name: str, server: str, sender: Sender, token: str = "") -> Repository:
    """
    Ask *server* for the ids and the default branch of the repository *name*.

    *token* is one for its API, empty for none. Raises: ClientError, which says how to go without.
    """
    if token and not _TOKEN.fullmatch(token):
        raise ClientError("The token for the API holds characters that no token has.")
    url, headers = _request(kind, name, server, token)
    try:
        response = sender.send("GET", url, headers=headers)
    except ClientError as error:
        raise ClientError(error.problem, f"{error.advice}\n{by_hand(kind, name)}") from error
    if response.status_code != 200:
        raise ClientError(
            f"{server} answered HTTP {response.status_code} about {name}.",
            f"{_cause(response.status_code, token)}\n{by_hand(kind, name)}",
        )
    match kind, json_of(response):
        case "github", {"id": int(own), "owner": {"id": int(owner)}, **rest}:
            real = rest.get("full_name")
        case "gitlab", {"id": int(own), "namespace": {"id": int(owner)}, **rest}:
            real = rest.get("path_with_namespace")
        case _:
            raise ClientError(
                f"{server} answered, but not with a repository.",
                f"Check --server.\n{by_hand(kind, name)}",
            )
    own_id = require_id(str(own), f"{server} answered, but the id")
    owner_id = require_id(str(owner), f"{server} answered, but the id of the owner")
    # The names that GitHub's tokens hold have the case of the repository, whatever was typed.
    if isinstance(real, str) and real.isascii() and real.lower() == name.lower():
        name = real
    branch = rest.get("default_branch")
    branch = require_branch(branch) if isinstance(branch, str) else "main"
    return Repository(kind, server, name, own_id, owner_id, branch)


def by_hand(kind: Kind, name: str) -> str:
    """Return how to find the ids without this program, and how to give them to it."""
    if kind == "github":
        return (
            "Or give both ids, which this prints:\n"
            f"  gh api repos/{name} --jq '\"--id \\(.id) --owner-id \\(.owner.id)\"'"
        )
    group = name.rpartition("/")[0]
    return (
        f"Or give both ids: --id of the project {name} and --owner-id of the group {group}. The page"
        " of each shows it."
    )


def _request(kind: Kind, name: str, server: str, token: str) -> tuple[str, dict[str, str]]:
    host = urlsplit(server).netloc
    if kind == "gitlab":
        headers = {"PRIVATE-TOKEN": token} if token else {}
        return f"{server}/api/v4/projects/{quote(name, safe='')}", headers
    headers = {"Accept": "application/vnd.github+json", "User-Agent": "federation"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if server == _PUBLIC["github"] or host.endswith(_GITHUB_TENANT):
        return f"https://api.{host}/repos/{name}", headers
    return f"{server}/api/v3/repos/{name}", headers


def _cause(status: int, token: str) -> str:
    if status in {301, 302, 307, 308}:
        return "It has another name by now. Give the one that its page shows."
    if status == 401:
        return "It does not take the token for its API. Renew the token, or unset its variable."
    if status in {403, 429}:
        return "It answers no more for now, or not without a token. Set one, or try again later."
    if token:
        return "Check the name, and that the token may read the repository."
    return "Check the name. A private repository is shown only to a token that may read it."
