"""
Run the demo's CI jobs against its broker, and print what each was granted or refused.

The jobs do over HTTP what real jobs do: ask for an ID token, exchange it, call the gateway.
"""

from __future__ import annotations

import asyncio
import json

import click

from federation.client import ClientError
from federation.client.ambient import subject_token
from federation.client.exchange import AccessToken
from federation.client.exchange import exchange as trade
from federation.client.http import Sender
from federation.demo.stage import Stage, set_stage
from federation.demo.to_try import commands_to_try
from federation.jose import jws
from federation.logs import configure_logs
from federation.outbound import Outbound

_SHOWN = ("iss", "sub", "fed:iss", "policy", "role", "repository", "project_path", "ref", "exp")


async def walk_through(*, keep: bool, program: str = "federation") -> int:
    """
    Start all servers, run the jobs, and return 0 if each of them ended as expected.

    *program* is how `federation` is called, in the commands that *keep* prints.
    """
    configure_logs("text", quiet=True)
    async with set_stage() as stage:
        click.echo(f"    issuer   {stage.issuer.base_url}")
        click.echo(f"    gateway  {stage.upstream_url}")
        click.echo(f"    broker   {stage.broker_url}")
        good = await asyncio.to_thread(_run_jobs, stage)
        if keep:
            _show_commands_to_try(stage, program)
            await asyncio.Event().wait()
    click.echo()
    click.secho("All as it should be." if good else "Something went otherwise.", bold=True)
    click.echo(f"To try it by hand: {program} demo --keep")
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
    headers = {"Authorization": f"Bearer {token.token}"}
    with Outbound().client() as http:
        for method in ("PUT", "POST"):  # update it; create it if there is none
            url = f"{stage.broker_url}/system/functions"
            answer = http.request(method, url, json=body, headers=headers)
            said = answer.text.strip()
            click.echo(f"    {method} /system/functions  {answer.status_code} {said}")
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
        # Everything is on this machine, so what the environment says about others is not asked.
        with Sender(Outbound().client()) as sender:
            environ = stage.issuer.environment(provider, job)
            token = subject_token(environ, stage.broker_url, sender)
            return trade(stage.broker_url, token, sender)
    except ClientError as error:
        return error


def _step(title: str) -> None:
    click.echo()
    click.secho(f"==> {title}", bold=True)


def _show_commands_to_try(stage: Stage, program: str) -> None:
    _step("Staying up until you press Ctrl-C. In another shell:")
    for title, lines in commands_to_try(stage, program):
        click.echo()
        click.secho(f"    # {title}", fg="cyan")
        for line in lines:
            click.echo(f"    {line}")
