"""`federation crds`: print the CustomResourceDefinitions of this version."""

from __future__ import annotations

import click

from federation.documents.kubernetes.crds import text


@click.command()
def crds() -> None:
    """
    Print the CustomResourceDefinitions of JwtIssuers, Policies and Roles.

    Apply them with: federation crds | kubectl apply --server-side
    --field-manager=federation-crds -f -
    """
    click.echo(text(), nl=False)
