"""
The documents that let the jobs of one repository deploy, and the rule tests beside them.

The Role is the tightest one that fits a push to the branch: `role_for` writes it, as it does for a
token, so the owner and the repository are pinned by ids and a rename admits nobody new.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from federation.claims import UnverifiedClaims
from federation.documents.rule_tests import whole
from federation.policy.role_for import DraftRole, role_for
from federation.policy.rule_tests import Outcome
from federation.providers.table import known_provider
from federation.starter.forge import Repository
from federation.text import printable, quoted

NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LONG_ENOUGH: Mapping[str, str] = {"github": "15m", "gitlab": "30m"}
_WHY: Mapping[str, str] = {
    "github": "A longer job logs in again.",
    "gitlab": "A GitLab job can exchange its one ID token once, so this must last for the job.",
}


def issuer_yaml(repository: Repository, url: str) -> str:
    """Return the JwtIssuer whose tokens the broker at *url* takes."""
    iss, kind = repository.iss, repository.kind
    provider = "" if known_provider(iss) else f"  provider: {kind}\n"
    return (
        "# Whose tokens the broker takes, and for which audience they must be issued.\n"
        "apiVersion: iam.openfaas.com/v1\n"
        "kind: JwtIssuer\n"
        "metadata:\n"
        f"  name: {repository.issuer_name}\n"
        "spec:\n"
        f"  iss: {quoted(iss)}\n"
        "  # The broker's own URL. Jobs ask for it.\n"
        f"  aud: [{quoted(url)}]\n"
        f"{provider}"
        f"  # How long an access token lives. {_WHY[kind]}\n"
        f"  tokenExpiry: {_LONG_ENOUGH[kind]}\n"
    )


def policy_name(namespace: str) -> str:
    """Return the name of the Policy for *namespace*."""
    return f"deploy-{namespace}"


def policy_yaml(namespace: str) -> str:
    """Return the Policy that lets a job deploy to *namespace*."""
    return (
        "# What may be done: the requests of `faas-cli deploy`, in one namespace.\n"
        "apiVersion: iam.openfaas.com/v1\n"
        "kind: Policy\n"
        "metadata:\n"
        f"  name: {quoted(policy_name(namespace))}\n"
        "spec:\n"
        "  statement:\n"
        "    - sid: deploy\n"
        "      effect: Allow\n"
        "      action: [Function:List, Function:Get, Function:Create, Function:Update]\n"
        f'      resource: ["{namespace}:*"]\n'
    )


def draft_role(repository: Repository, environment: str, namespace: str) -> DraftRole:
    """Return the Role that admits a push to the branch, in *environment* if one is given."""
    drafted, notes = role_for(_claims(repository, environment), policy=policy_name(namespace))
    if drafted is None:
        raise AssertionError(notes)  # the claims below are those that each job has
    return drafted


def role_yaml(repository: Repository, role: DraftRole) -> str:
    """Return the document of *role*, with a line for its reader."""
    about = f"Jobs of {repository.name} on the branch {repository.branch}"
    return f"# {printable(about)}. The ids survive a rename, and nobody can take them over.\n{role.yaml}"


def rule_tests_yaml(
    repository: Repository,
    *,
    environment: str,
    namespace: str,
    url: str,
    decide: Callable[[UnverifiedClaims], Outcome],
    name: str,
) -> str:
    """
    Return the rule tests of the Role *name*. They expect what *decide* says of each job.

    Other Roles that are there may admit some of these jobs too.
    """
    texts = []
    for suffix, about, job in _jobs(repository):
        claims = {**_claims(job, environment), "aud": url}
        came = decide(UnverifiedClaims(whole(claims)))
        texts.append(
            f"# {about}\n"
            "apiVersion: iam.openfaas.com/v1\n"
            "kind: RuleTest\n"
            "metadata:\n"
            f"  name: {name}-{suffix}\n"
            "spec:\n"
            "  claims:\n"
            + "".join(f"    {claim}: {quoted(str(value))}\n" for claim, value in claims.items())
            + f"  expect:\n{_expected(came, f'Function:Create={namespace}:app')}"
        )
    return "---\n".join(texts)


def _jobs(repository: Repository) -> Iterable[tuple[str, str, Repository]]:
    """Yield the end of a test's name, what it is about, and where its job runs."""
    yield "deploys", f"A push to {printable(repository.branch)}.", repository
    branch = replace(repository, branch=f"not-{repository.branch}")
    yield "not-from-another-branch", "A push to another branch.", branch
    other = replace(repository, id="1" if repository.id != "1" else "2")
    yield "not-by-name", "Another repository that has the name, since this one was deleted.", other


def _expected(outcome: Outcome, access: str) -> str:
    if outcome.refusal is not None:
        return f"    refusal: {outcome.refusal.reason}\n"
    roles = ", ".join(sorted(outcome.roles))
    return f'    roles: [{roles}]\n    allowed: ["{access}"]\n'


def _claims(repository: Repository, environment: str) -> UnverifiedClaims:
    """Return the claims of a job of *repository* on its branch, as far as a Role names them."""
    ref = f"refs/heads/{repository.branch}"
    claims: dict[str, object] = {"iss": repository.iss, "ref_type": "branch"}
    if environment:
        claims["environment"] = environment
    if repository.kind == "github":
        claims |= {
            "sub": f"repo:{repository.name}:ref:{ref}",
            "repository": repository.name,
            "repository_id": repository.id,
            "repository_owner": repository.owner,
            "repository_owner_id": repository.owner_id,
            "event_name": "push",
            "ref": ref,
        }
    else:
        claims |= {
            "sub": f"project_path:{repository.name}:ref_type:branch:ref:{repository.branch}",
            "project_path": repository.name,
            "project_id": repository.id,
            "namespace_path": repository.owner,
            "namespace_id": repository.owner_id,
            "pipeline_id": "1",
            "pipeline_source": "push",
            "job_id": "1",
            "ref": repository.branch,
            "ref_path": ref,
        }
    return UnverifiedClaims(claims)
