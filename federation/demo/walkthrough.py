"""
Run the demo's CI jobs against its broker, and print what each was granted or refused.

The jobs do over HTTP what real jobs do: ask for an ID token, exchange it, call the gateway.
"""

from __future__ import annotations

import asyncio
import json

import click
import httpx2

from federation.client import ClientError
from federation.client.ambient import subject_token
from federation.client.exchange import AccessToken
from federation.client.exchange import exchange as trade
from federation.client.http import Sender
from federation.demo.stage import Stage, set_stage
from federation.jose import jws
from federation.logs import configure_logs

_SHOWN = ("iss", "sub", "fed:iss", "policy", "role", "repository", "project_path", "ref", "exp")


async def walk_through(*, keep: bool) -> int:
    """Start all servers, run the jobs, and return 0 if each of them ended as expected."""
    configure_logs("text", quiet=True)
    async with set_stage() as stage:
        click.echo(f"    issuer   {stage.issuer.base_url}")
        click.echo(f"    gateway  {stage.upstream_url}")
        click.echo(f"    broker   {stage.broker_url}")
        good = await asyncio.to_thread(_run_jobs, stage)
        if keep:
            _show_commands_to_try(stage)
            await asyncio.Event().wait()
    click.echo()
    click.secho("All as it should be." if good else "Something went otherwise.", bold=True)
    return 0 if good else 1


def _run_jobs(stage: Stage) -> bool:
    """Return whether every job ended as it should."""
    deployer = _admitted(stage, "github", "main", "A GitHub job on octo-org/octo-repo, branch main")
    return (
        deployer is not None
        and _admitted(stage, "gitlab", "main", "A GitLab job on octo-group/app, branch main")
        is not None
        and _refused(stage, "github", "feature", "The same GitHub repository, branch feature/login")
        and _refused(stage, "github", "stranger", "A stranger's repository, same issuer")
        and _deployed(stage, deployer, "dev")
        and not _deployed(stage, deployer, "staging")
    )


def _admitted(stage: Stage, provider: str, job: str, title: str) -> AccessToken | None:
    _step(f"{title}: asks for its ID token and trades it")
    outcome = _run_job(stage, provider, job)
    if isinstance(outcome, ClientError):
        click.secho(f"    refused, which should not be: {outcome}", fg="red")
        return None
    click.secho("    admitted", fg="green", nl=False)
    click.echo(f", for {outcome.expires_in_seconds} seconds. The access token says:")
    for name, value in jws.parse(outcome.token).claims.items():
        if name in _SHOWN:
            click.echo(f"      {name:<12} {json.dumps(value)}")
    return outcome


def _refused(stage: Stage, provider: str, job: str, title: str) -> bool:
    _step(f"{title}: asks and trades too")
    outcome = _run_job(stage, provider, job)
    if isinstance(outcome, AccessToken):
        click.secho("    admitted, which should not be", fg="red")
        return False
    click.secho("    refused", fg="yellow", nl=False)
    click.echo(f". {outcome.problem}")
    return True


def _deployed(stage: Stage, token: AccessToken, namespace: str) -> bool:
    """Deploy a function with the requests of `faas-cli deploy`. True if the broker allowed it."""
    _step(f"The admitted job deploys the function figlet to namespace {namespace}")
    body = {"service": "figlet", "image": "registry.example.com/figlet:1", "namespace": namespace}
    for method in ("PUT", "POST"):  # update it; create it if there is none
        answer = httpx2.request(
            method,
            f"{stage.broker_url}/system/functions",
            json=body,
            headers={"Authorization": f"Bearer {token.token}"},
        )
        click.echo(f"    {method} /system/functions  {answer.status_code} {answer.text.strip()}")
        if answer.status_code != 404:
            break
    if answer.is_success:
        click.secho("    deployed", fg="green")
    else:
        click.secho("    refused", fg="yellow")
    return answer.is_success


def _run_job(stage: Stage, provider: str, job: str) -> AccessToken | ClientError:
    """Do what `federation exchange` does in a job, with the environment that a runner sets."""
    try:
        with Sender() as sender:
            environ = stage.issuer.environment(provider, job)
            token = subject_token(environ, stage.broker_url, sender)
            return trade(stage.broker_url, token, sender)
    except ClientError as error:
        return error


def _step(title: str) -> None:
    click.echo()
    click.secho(f"==> {title}", bold=True)


def _show_commands_to_try(stage: Stage) -> None:
    _step("Staying up until you press Ctrl-C. In another shell:")
    for name, value in stage.issuer.environment("github", "main").items():
        click.echo(f"    export {name}='{value}'")
    click.echo(f"    federation exchange --url {stage.broker_url}")
    click.echo(f"    federation check {stage.documents}")
    click.echo(f"    curl -s {stage.broker_url}/.well-known/openid-configuration")
