"""`federation exchange`: exchange a CI job's ID token for an access token."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from federation.cli.terminal import notice
from federation.client import ClientError
from federation.client.ambient import SYSTEMS, subject_token
from federation.client.broker_url import broker_url
from federation.client.exchange import AccessToken, BrokerRefused
from federation.client.exchange import exchange as trade
from federation.client.faas_cli import config_path, gateway_name, save_token
from federation.client.http import Sender
from federation.outbound import Outbound
from federation.ownership import fault
from federation.text import no_command, no_command_in_json

_FILE_BYTES = 64 * 1024


url_option = click.option(
    "--url",
    required=True,
    envvar="FEDERATION_URL",
    show_envvar=True,
    help="The broker's public URL.",
)
from_option = click.option(
    "--from",
    "provider",
    type=click.Choice(list(SYSTEMS)),
    help="Get the ID token as this provider's jobs do. Default: the CI system that is recognised.",
)
role_option = click.option(
    "--role",
    "roles",
    multiple=True,
    help="Let only this Role give anything. Policies with a Deny stay. Repeatable.",
)


@click.command()
@url_option
@click.option(
    "--audience",
    help="Audience that the ID token is asked for, and must have. Default: the broker's URL.",
)
@click.option(
    "--token",
    default="ambient",
    show_default=True,
    help="Where the subject token comes from: a file, - for standard input, or ambient: the CI"
    " system that runs this job.",
)
@from_option
@role_option
@click.option(
    "--function",
    "functions",
    multiple=True,
    metavar="NAMESPACE:NAME",
    help="Ask for a token to invoke this function, and nothing else. Repeatable.",
)
@click.option(
    "--faas-cli",
    "for_faas_cli",
    is_flag=True,
    help="Do not print the token; write it where faas-cli looks for it.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text: the token alone. json: one object, also after a refusal.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell each step on standard error.")
def exchange(
    *,
    url: str,
    audience: str | None,
    token: str,
    provider: str | None,
    roles: tuple[str, ...],
    functions: tuple[str, ...],
    for_faas_cli: bool,
    form: str,
    verbose: bool,
) -> None:
    """
    Trade this CI job's ID token for an access token, and print it.

    The token goes to standard output and everything else to standard error. The exit code is 0
    if there is a token, and 1 if the broker refused or could not be reached.
    """
    url, slip = broker_url(url)
    if slip:
        notice(f"--url had {slip}. {url} is used.")
    if for_faas_cli and functions:
        raise click.UsageError("faas-cli asks for function tokens itself; leave out --function")
    if provider and token != "ambient":
        raise click.UsageError("give either --token or --from")
    trace = _step if verbose else None
    try:
        audience = audience or url
        with Sender(tell=notice, trace=trace) as sender:
            if verbose:
                tell_way(url)
            subject = (
                subject_token(os.environ, audience, sender, provider=provider)
                if token == "ambient"
                else read_token(token)
            )
            granted = trade(
                url, subject, sender, audience=audience, roles=roles, functions=functions
            )
        if verbose:
            _step(_summary(granted))
        config = _save_for_faas_cli(url, granted) if for_faas_cli else None
    except ClientError as error:
        raise _failure(error, form) from error
    if form == "json":
        click.echo(no_command_in_json(json.dumps(_as_json(url, granted, config), indent=2)))
    elif not for_faas_cli:
        click.echo(granted.token)


def _as_json(url: str, granted: AccessToken, config: Path | None) -> dict[str, object]:
    """Return the grant for programs. With *config* the token is there, and not in the result."""
    where: dict[str, object] = (
        {"access_token": granted.token}
        if config is None
        else {"gateway": gateway_name(url), "faas_cli_config": str(config)}
    )
    return {
        **where,
        "expires_in": granted.expires_in_seconds,
        "roles": granted.listed("role"),
        "policies": granted.listed("policy"),
    }


def _failure(error: ClientError, form: str) -> click.ClickException:
    """Return the exception that ends the command, after the object for programs is printed."""
    if form == "json":
        told: dict[str, object] = {
            "reason": None,
            "message": error.problem,
            "advice": error.advice,
            "request_id": None,
            "claims": None,
        }
        if isinstance(error, BrokerRefused):
            told |= {
                "reason": error.reason,
                "request_id": error.request_id,
                "claims": dict(error.claims),
            }
        click.echo(no_command_in_json(json.dumps({"error": told}, indent=2)))
    # The broker or the CI system may have worded a part of it.
    lines = map(no_command, str(error).split("\n"))
    return click.ClickException("\n".join(lines))


def _summary(granted: AccessToken) -> str:
    roles = ", ".join(granted.listed("role")) or "none named"
    policies = ", ".join(granted.listed("policy")) or "none named"
    return (
        f"access token for {granted.expires_in_seconds} seconds: Roles {roles}; policies {policies}"
    )


def tell_way(url: str) -> None:
    """Tell by which proxy *url* is asked, and whose certificates are trusted."""
    outbound = Outbound.of(os.environ)
    described = outbound.described()
    proxies = [used for used in described.proxies if url.startswith(f"{used.scheme}:")]
    if proxies and outbound.proxy_for(url):
        _step(f"Proxy to the broker: {proxies[0].url}, from {proxies[0].variable}")
    else:
        _step("Proxy to the broker: none")
    _step(f"Trusted CAs: {described.trust_store}")


def _step(line: str) -> None:
    click.echo(no_command(f"  {line}"), err=True)


def _save_for_faas_cli(url: str, granted: AccessToken) -> Path:
    path = config_path(os.environ, Path.cwd(), Path.home())
    for replaced in save_token(path, url, granted.token):
        if replaced != "oauth2":
            notice(f"a saved {replaced} login for {gateway_name(url)} was replaced.")
    click.echo(
        f"faas-cli may use {gateway_name(url)} for the next {granted.expires_in_seconds} seconds"
        f" ({path}; keep it out of artifacts, caches and images).",
        err=True,
    )
    return path


def read_token(place: str) -> str:
    """
    Return the token in the file *place*, `-` for standard input.

    Raises: ClientError.
    """
    try:
        with click.open_file(place, "rb") as file:
            text: str = file.read(_FILE_BYTES).decode("ascii").strip()
    except UnicodeDecodeError:
        raise ClientError(f"What {place} holds is not a token: it is not ASCII text.") from None
    except OSError as error:
        raise ClientError(f"The token cannot be read from {place}.", f"{fault(error)}.") from error
    if not text:
        raise ClientError(f"{place} holds no token.")
    return text
