"""
`fed`: a plugin of faas-cli, which signs people and CI jobs in.

`faas-cli fed login` signs a person in, and `faas-cli fed auth` a CI job.

faas-cli runs an executable in `~/.openfaas/plugins` by its name:
`mkdir -p ~/.openfaas/plugins && ln -s "$(command -v fed)" ~/.openfaas/plugins/`.
"""

from __future__ import annotations

import click

from federation import __version__
from federation.cli.exchange import exchange, from_option, role_option
from federation.cli.login import login
from federation.cli.logout import logout
from federation.cli.token import token
from federation.cli.whoami import whoami
from federation.logs import quiet_logs


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fed")
@click.pass_context
def fed(context: click.Context) -> None:
    """Sign faas-cli in: with your browser (login), or with this CI job's identity (auth)."""
    context.with_resource(quiet_logs())


@fed.command()
@click.option(
    "--gateway",
    "-g",
    required=True,
    envvar=["FEDERATION_URL", "OPENFAAS_URL"],
    help="The gateway's URL, which is the broker's.",
)
@click.option("--audience", help="Audience to ask the CI system for. Default: the gateway's URL.")
@click.option(
    "--token",
    default="ambient",
    show_default=True,
    help="File with a subject token, - for standard input, or ambient.",
)
@from_option
@role_option
@click.option("-v", "--verbose", is_flag=True, help="Tell each step on standard error.")
@click.pass_context
def auth(
    context: click.Context,
    *,
    gateway: str,
    audience: str | None,
    token: str,
    provider: str | None,
    roles: tuple[str, ...],
    verbose: bool,
) -> None:
    """
    Exchange this CI job's ID token and sign faas-cli in to the gateway for some minutes.

    The token is written where faas-cli looks for it. It replaces a saved password for the same
    gateway.
    """
    context.invoke(
        exchange,
        url=gateway,
        audience=audience,
        token=token,
        provider=provider,
        roles=roles,
        functions=(),
        for_faas_cli=True,
        form="text",
        verbose=verbose,
    )


for command in (login, token, whoami, logout):
    fed.add_command(command)
