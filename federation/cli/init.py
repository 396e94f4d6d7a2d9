"""
`federation init`: writes the documents, their rule tests and the workflow by which one repository deploys.

What it writes has no problem by `check --strict`, together with the documents that are there, and
its rule tests pass. It never overwrites a file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import time

import click

from federation.cli.exchange import url_option
from federation.cli.terminal import notice
from federation.client import ClientError
from federation.client.broker_url import broker_url
from federation.client.docs import page_at
from federation.client.http import Sender, require_secure_url
from federation.documents.catalog import Catalog
from federation.explained import outcome
from federation.policy.index import PolicySets
from federation.sources.files import load
from federation.starter.documents import (
    NAMESPACE,
    draft_role,
    issuer_yaml,
    policy_name,
    policy_yaml,
    role_yaml,
    rule_tests_yaml,
)
from federation.starter.files import write_new
from federation.starter.forge import (
    Kind,
    Repository,
    by_hand,
    look_up,
    public_server,
    repository_name,
    require_branch,
    require_id,
    require_server,
    token_variables,
)
from federation.starter.workflow import FILES, PLACEHOLDER, SOURCES, workflow_yaml
from federation.text import nearest, no_command

_DOCUMENTS = Path("documents")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The options of the command."""

    name: str
    url: str
    server: str | None
    branch: str | None
    environment: str
    namespace: str
    id: str | None
    owner_id: str | None
    source: str | None
    into: Path
    only: str | None
    printed: bool


class _Sites(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0][:1].isalnum() and not nearest(args[0], self.commands):
            page = page_at("providers.md", os.environ)
            ctx.fail(f"init knows github and gitlab alone. For other CI systems copy from {page}.")
        return super().resolve_command(ctx, args)


@click.group(cls=_Sites)
def init() -> None:
    """Write the documents, their tests and the workflow by which a repository deploys."""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both kinds have."""
    for option in (
        click.argument("name"),
        url_option,
        click.option(
            "--server", help="The site, if it is one of your own: https://git.example.com."
        ),
        click.option("--branch", help="The branch that may deploy. Default: the default branch."),
        click.option("--environment", default="", help="Admit only jobs of this environment."),
        click.option(
            "--namespace",
            default="openfaas-fn",
            show_default=True,
            help="The namespace that the job deploys to.",
        ),
        click.option(
            "--id",
            help="The id of the repository or project. With --owner-id, nothing is looked up.",
        ),
        click.option("--owner-id", help="The id of its owner or group."),
        click.option(
            "--source",
            metavar="OWNER/NAME@COMMIT",
            help="Where you keep this project, and the commit that you reviewed. Default: a placeholder.",
        ),
        click.option(
            "--into",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path(),
            help="The folder to write into. Default: this one.",
        ),
        click.option(
            "--only", type=click.Choice(["documents", "workflow"]), help="Write just these."
        ),
        click.option("--print", "printed", is_flag=True, help="Print the files, and write none."),
    )[::-1]:
        command = option(command)
    return command


@init.command()
@_options
def github(**given: object) -> None:
    """
    Write them for the GitHub repository NAME, as OWNER/NAME.

    Its ids are asked of GitHub's API. For a private repository, GH_TOKEN or GITHUB_TOKEN must hold a
    token that may read it; for a server of your own, GH_ENTERPRISE_TOKEN. No file is overwritten.
    """
    _init("github", _Wanted(**given))  # type: ignore[arg-type]  # click has made each value


@init.command()
@_options
def gitlab(**given: object) -> None:
    """
    Write them for the GitLab project NAME, as GROUP/PROJECT.

    Its ids are asked of GitLab's API. For a private project, GITLAB_TOKEN must hold a token that may
    read it; for a server of your own, GITLAB_HOST must name that server too. No file is overwritten.
    """
    _init("gitlab", _Wanted(**given))  # type: ignore[arg-type]  # click has made each value


def _init(kind: Kind, wanted: _Wanted) -> None:
    if not NAMESPACE.fullmatch(wanted.namespace):
        raise click.BadParameter("a namespace has a-z, 0-9 and -", param_hint="--namespace")
    try:
        url, _ = broker_url(wanted.url)
        require_secure_url(url, "The broker's URL")
        repository = _repository(kind, wanted)
        documents = {} if wanted.only == "workflow" else _documents(repository, wanted, url)
        texts = dict(documents)
        if wanted.only != "documents":
            source = wanted.source or SOURCES[kind]
            text = workflow_yaml(repository, url, wanted.environment, source)
            texts[Path(FILES[kind])] = text
        if wanted.printed:
            for path, text in texts.items():
                click.echo(f"# --- {path}\n{text}")
            return
        write_new(wanted.into, texts)
    except ClientError as error:
        raise click.ClickException("\n".join(map(no_command, str(error).split("\n")))) from error
    _tell(repository, wanted, url, list(texts))


def _repository(kind: Kind, wanted: _Wanted) -> Repository:
    """The repository, with the ids that were given or looked up."""
    server = require_server(wanted.server or public_server(kind))
    name = repository_name(kind, wanted.name, server)
    branch = require_branch(wanted.branch) if wanted.branch else ""
    if wanted.id and wanted.owner_id:
        own, owner = require_id(wanted.id, "--id"), require_id(wanted.owner_id, "--owner-id")
        return Repository(kind, server, name, own, owner, branch or "main")
    if wanted.id or wanted.owner_id:
        advice = by_hand(kind, name).removeprefix("Or give")
        raise ClientError("Both --id and --owner-id are needed.", f"Give{advice}")
    variables = token_variables(kind, server, os.environ.get("GITLAB_HOST", ""))
    token = next((os.environ[each] for each in variables if os.environ.get(each)), "")
    with Sender(tell=notice) as sender:
        found = look_up(kind, name, server, sender, token)
    return replace(found, branch=branch) if branch else found


def _documents(repository: Repository, wanted: _Wanted, url: str) -> dict[Path, str]:
    """The documents that are lacking. They are checked together with those that are there."""
    there = wanted.into / _DOCUMENTS
    before = load((there,)) if there.is_dir() else None
    if before is not None and before.documents and before.catalog is None:
        raise ClientError(
            f"The documents in {there} have errors, so nothing is added to them.",
            f"Run: federation check {there}",
        )
    catalog = before.catalog if before else None
    role = draft_role(repository, wanted.environment, wanted.namespace)
    policy = policy_name(wanted.namespace)
    texts: dict[Path, str] = {}
    if catalog is None or repository.iss not in catalog.issuers:
        texts[_DOCUMENTS / f"{repository.issuer_name}.yaml"] = issuer_yaml(repository, url)
    elif url not in catalog.issuers[repository.iss].audiences:
        raise ClientError(
            f"The JwtIssuer in {there} does not list {url} under aud.", "Add it, or check --url."
        )
    if catalog is None or policy not in catalog.policies:
        texts[_DOCUMENTS / f"{policy}.yaml"] = policy_yaml(wanted.namespace)
    texts[_DOCUMENTS / f"{role.name}.yaml"] = role_yaml(repository, role)
    known = {str(problem) for problem in before.problems} if before else set()
    decided = partial(
        outcome,
        _checked([there] if before else [], texts, known),
        policies=PolicySets(),
        now=time(),
    )
    tests = _DOCUMENTS / "tests" / f"{role.name}.yaml"
    texts[tests] = rule_tests_yaml(
        repository,
        environment=wanted.environment,
        namespace=wanted.namespace,
        url=url,
        decide=decided,
        name=role.name,
    )
    return texts


def _checked(there: list[Path], texts: Mapping[Path, str], known: set[str]) -> Catalog:
    """
    Return the catalog of the new documents beside those that are there.

    Raises: ClientError if `check --strict` finds problems that are not *known*.
    """
    with tempfile.TemporaryDirectory(prefix="federation-init-") as folder:
        for path, text in texts.items():
            (Path(folder) / path.name).write_text(text, "utf-8")
        found = load((*there, Path(folder)))
        told = (str(each) for each in found.problems)
        problems = [
            each.replace(f"{folder}/", f"{_DOCUMENTS}/") for each in told if each not in known
        ]
    if problems or found.catalog is None:
        raise ClientError(
            "The documents would have problems, so nothing was written:", "\n".join(problems)
        )
    return found.catalog


def _serve(documents: Path, url: str) -> str:
    """Return the command that runs the broker. Without an upstream nothing enforces the policies."""
    return (
        f"federation serve --documents {documents} --issuer-url {url}"
        " --upstream http://GATEWAY:8080 --upstream-secrets FOLDER"
        " (FOLDER holds the gateway's basic-auth-user and basic-auth-password)"
    )


def _tell(repository: Repository, wanted: _Wanted, url: str, written: list[Path]) -> None:
    for path in written:
        click.echo(f"wrote {wanted.into / path}")
    click.echo(
        f"\n{repository.name} has the id {repository.id}, and its owner the id {repository.owner_id}."
        f" Jobs on the branch {repository.branch} may deploy to {wanted.namespace}.\n\nNext:"
    )
    steps = []
    workflow = Path(FILES[repository.kind])
    if workflow in written and not wanted.source:
        place = SOURCES[repository.kind].partition("@")[0]
        steps.append(
            f"In {wanted.into / workflow}, replace {place} with your copy of this project, and"
            f" {PLACEHOLDER} with the commit that you reviewed."
        )
    if wanted.only != "workflow":
        documents = wanted.into / _DOCUMENTS
        steps += [
            f"Check the documents: federation check --strict {documents}",
            f"Run their rule tests: federation test {documents}",
            f"Run the broker with them, in front of your gateway: {_serve(documents, url)}",
        ]
    if workflow in written:
        steps.append(f"Commit {workflow} in {repository.name}, and push to {repository.branch}.")
    for number, step in enumerate(steps, 1):
        click.echo(no_command(f"  {number}. {step}"))
