"""`federation exchange`: exchange a CI job's ID token for an access token."""

from __future__ import annotations

import os
from pathlib import Path

import click

from federation.client import ClientError
from federation.client.ambient import SYSTEMS, subject_token
from federation.client.exchange import AccessToken
from federation.client.exchange import exchange as trade
from federation.client.faas_cli import config_path, gateway_name, save_token
from federation.client.http import Sender
from federation.text import no_command, printable

_FILE_BYTES = 64 * 1024


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
@click.option("--url", required=True, envvar="FEDERATION_URL", help="The broker's public URL.")
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
def exchange(
    *,
    url: str,
    audience: str | None,
    token: str,
    provider: str | None,
    roles: tuple[str, ...],
    functions: tuple[str, ...],
    for_faas_cli: bool,
) -> None:
    """
    Trade this CI job's ID token for an access token, and print it.

    The token goes to standard output and everything else to standard error. The exit code is 0
    if there is a token, and 1 if the broker refused or could not be reached.
    """
    if for_faas_cli and functions:
        raise click.UsageError("faas-cli asks for function tokens itself; leave out --function")
    if provider and token != "ambient":
        raise click.UsageError("give either --token or --from")
    try:
        audience = audience or url.rstrip("/")
        with Sender(tell=_notice) as sender:
            subject = (
                subject_token(os.environ, audience, sender, provider=provider)
                if token == "ambient"
                else _read(token)
            )
            granted = trade(
                url, subject, sender, audience=audience, roles=roles, functions=functions
            )
        if for_faas_cli:
            _save_for_faas_cli(url, granted)
        else:
            click.echo(granted.token)
    except ClientError as error:
        # The broker or the CI system may have worded a part of it.
        lines = map(printable, str(error).split("\n"))
        raise click.ClickException("\n".join(lines)) from error


def _notice(line: str) -> None:
    click.echo(no_command(f"Notice: {line}"), err=True)


def _save_for_faas_cli(url: str, granted: AccessToken) -> None:
    path = config_path(os.environ, Path.cwd(), Path.home())
    for replaced in save_token(path, url, granted.token):
        if replaced != "oauth2":
            _notice(f"a saved {replaced} login for {gateway_name(url)} was replaced.")
    click.echo(
        f"faas-cli may use {gateway_name(url)} for the next {granted.expires_in_seconds} seconds"
        f" ({path}; keep it out of artifacts, caches and images).",
        err=True,
    )


def _read(place: str) -> str:
    try:
        with click.open_file(place, "rb") as file:
            text: str = file.read(_FILE_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(f"The token cannot be read from {place}.", str(error)) from error
    if not text:
        raise ClientError(f"{place} holds no token.")
    return text
