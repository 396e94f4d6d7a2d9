"""`federation demo`: one job admitted, one refused and why, on this machine alone."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from contextlib import suppress

import click

from federation.client import ClientError
from federation.client.ambient import subject_token
from federation.client.exchange import AccessToken
from federation.client.exchange import exchange as trade
from federation.client.http import Sender
from federation.demo.stage import Stage, set_stage
from federation.logs import configure_logs

__all__ = ["demo"]


@click.command()
@click.option("--keep", is_flag=True, help="Stay up afterwards, to try things by hand.")
def demo(keep: bool) -> None:
    """
    Admit one CI job and refuse another, on this machine alone.

    Starts a local CI issuer and a broker with sample documents on free loopback ports, runs
    two jobs against them, prints what happened and why, and stops. Needs no network.
    """
    configure_logs("text", quiet=True)
    with suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(_play(keep=keep)))


async def _play(*, keep: bool) -> int:
    _step("Starting a local CI issuer and a broker with sample documents")
    async with set_stage() as stage:
        click.echo(f"    issuer  {stage.issuer.base_url}")
        click.echo(f"    broker  {stage.broker_url}")
        told = [
            await _admitted(
                stage, "github", "main", "A GitHub job on octo-org/octo-repo, branch main"
            ),
            await _admitted(stage, "gitlab", "main", "A GitLab job on octo-group/app, branch main"),
            await _refused(
                stage, "github", "feature", "The same GitHub repository, branch feature/login"
            ),
            await _refused(stage, "github", "stranger", "A stranger's repository, same issuer"),
        ]
        if keep:
            _tell_how_to_go_on(stage)
            await asyncio.Event().wait()
    good = all(told)
    click.echo()
    click.secho("All as it should be." if good else "Something went otherwise.", bold=True)
    return 0 if good else 1


async def _admitted(stage: Stage, provider: str, job: str, title: str) -> bool:
    _step(f"{title}: asks for its ID token and trades it")
    outcome = await asyncio.to_thread(_run_job, stage, provider, job)
    if isinstance(outcome, ClientError):
        click.secho(f"    refused, which should not be: {outcome}", fg="red")
        return False
    click.secho("    admitted", fg="green", nl=False)
    click.echo(f", for {outcome.expires_in_seconds} seconds. The access token says:")
    for name, value in _decoded(outcome.token).items():
        if name in _SHOWN:
            click.echo(f"      {name:<12} {json.dumps(value)}")
    return True


_SHOWN = ("iss", "sub", "fed:iss", "policy", "role", "repository", "project_path", "ref", "exp")


async def _refused(stage: Stage, provider: str, job: str, title: str) -> bool:
    _step(f"{title}: asks and trades too")
    outcome = await asyncio.to_thread(_run_job, stage, provider, job)
    if isinstance(outcome, AccessToken):
        click.secho("    admitted, which should not be", fg="red")
        return False
    click.secho("    refused", fg="yellow", nl=False)
    click.echo(f". {outcome.problem}")
    return True


def _run_job(stage: Stage, provider: str, job: str) -> AccessToken | ClientError:
    """What `federation exchange` does within a job, in the environment its runner gives it."""
    sender = Sender()
    try:
        environ = stage.issuer.environment(provider, job)
        token = subject_token(environ, stage.broker_url, sender)
        return trade(stage.broker_url, token, sender)
    except ClientError as error:
        return error


def _decoded(token: str) -> dict[str, object]:
    payload = token.split(".")[1]
    members: dict[str, object] = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    return members


def _step(title: str) -> None:
    click.echo()
    click.secho(f"==> {title}", bold=True)


def _tell_how_to_go_on(stage: Stage) -> None:
    _step("Staying up until you press Ctrl-C. In another shell:")
    for name, value in stage.issuer.environment("github", "main").items():
        click.echo(f"    export {name}='{value}'")
    click.echo(f"    federation exchange --url {stage.broker_url}")
    click.echo(f"    federation check {stage.documents}")
    click.echo(f"    curl -s {stage.broker_url}/.well-known/openid-configuration")
