"""
`fed`: a plugin of faas-cli, so that `faas-cli fed auth` signs in.

faas-cli runs any executable in `~/.openfaas/plugins` by its name:
`mkdir -p ~/.openfaas/plugins && ln -s "$(command -v fed)" ~/.openfaas/plugins/`.
"""

from __future__ import annotations

import click

from federation import __version__
from federation.cli.exchange import exchange

__all__ = ["fed"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fed")
def fed() -> None:
    """Sign faas-cli in with this CI job's identity."""


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
@click.option("--role", "roles", multiple=True, help="Let only this Role take part. Repeatable.")
@click.pass_context
def auth(
    context: click.Context,
    gateway: str,
    audience: str | None,
    token: str,
    roles: tuple[str, ...],
) -> None:
    """
    Trade this CI job's ID token, so that faas-cli may use the gateway for some minutes.

    It writes the token where faas-cli looks for it; a saved password for the same gateway is
    replaced.
    """
    context.invoke(
        exchange,
        url=gateway,
        audience=audience,
        token=token,
        roles=roles,
        functions=(),
        for_faas_cli=True,
    )
