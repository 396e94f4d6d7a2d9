"""
`federation claims`: shows what this CI job's ID token says, and never the token.

Claims without a signature let nobody in, so they may be printed in a log. Those that name a person
are left out, unless they are asked for. `jti` is always left out: no decision reads it.
"""

from __future__ import annotations

import json
import os

import click

from federation.cli.exchange import from_option, read_token
from federation.cli.terminal import notice
from federation.client import ClientError
from federation.client.ambient import subject_token
from federation.client.broker_url import broker_url
from federation.client.http import Sender
from federation.client.subject import SubjectToken
from federation.text import no_command, no_command_in_json

_NOBODY = "federation-claims"
"""The audience if none is given. No service takes a token for it."""


@click.command()
@click.option(
    "--url",
    envvar="FEDERATION_URL",
    help="The broker's public URL: the audience that the token is asked for.",
)
@click.option(
    "--audience",
    help="Another audience to ask for. Default: the broker's URL, else one that no broker accepts.",
)
@click.option(
    "--token",
    default="ambient",
    show_default=True,
    help="Where the token comes from: a file, - for standard input, or ambient: the CI system that"
    " runs this job.",
)
@from_option
@click.option("--personal", is_flag=True, help="Show claims that name a person too.")
@click.option("-v", "--verbose", is_flag=True, help="Tell each step on standard error.")
def claims(
    *,
    url: str | None,
    audience: str | None,
    token: str,
    provider: str | None,
    personal: bool,
    verbose: bool,
) -> None:
    """
    Show the claims of this CI job's ID token as JSON. The token itself is never shown.

    Nothing is verified, and nothing is sent to the broker. `federation role from-token -` writes a
    Role from the output, and `federation explain --claims -` says what it would be allowed.
    """
    if provider and token != "ambient":
        raise click.UsageError("give either --token or --from")
    asked = audience or (broker_url(url)[0] if url else _NOBODY)
    trace = notice if verbose else None
    try:
        if token == "ambient":
            with Sender(tell=notice, trace=trace) as sender:
                given = subject_token(os.environ, asked, sender, provider=provider)
        else:
            given = read_token(token)
        subject = SubjectToken.read(given)
    except ClientError as error:
        raise click.ClickException("\n".join(map(no_command, str(error).split("\n")))) from error
    click.echo(no_command_in_json(json.dumps(subject.told(personal=personal), indent=2)))
    if token == "ambient" and asked == _NOBODY:
        notice(
            f"The audience is {_NOBODY}, which no broker accepts. Give --url to ask for the broker's."
        )
